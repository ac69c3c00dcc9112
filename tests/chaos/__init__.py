"""Tests that try to break the program: seeded storms of faults, kills and damage.

Fuzzing is not part of the suite: `python -m tests.chaos.fuzz` runs it.
"""
