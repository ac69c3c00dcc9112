"""Tests of what the benchmarks do with their measurements."""
