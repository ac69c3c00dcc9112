"""Tests of the rules between settings."""
