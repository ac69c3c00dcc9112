"""Tests of the cache core."""
