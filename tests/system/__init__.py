"""Tests: system."""

import tests.heap  # noqa: F401
