"""Tests that try to break the program: seeded storms of faults, kills and damage, and fuzzing."""
