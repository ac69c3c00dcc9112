"""Tests: integration."""

import tests.heap  # noqa: F401
