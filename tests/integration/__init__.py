"""Tests with real servers, files, sockets, threads and processes."""

import tests.heap  # noqa: F401
