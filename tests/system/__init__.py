"""Tests of the whole daemon against origins with faults."""

import tests.heap  # noqa: F401
