"""Tests of the whole that take long: `python -m tests long`, not part of `python -m tests`."""
