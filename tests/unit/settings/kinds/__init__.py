"""Tests of the kinds of values."""
