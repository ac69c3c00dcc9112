"""Unit tests: no reactor, no network, no threads, no sleeps."""

from hypothesis import settings

import tests.heap  # noqa: F401

# The machine that runs the tests may be busy: a slow example is no failure.
settings.register_profile("ncps", deadline=None, max_examples=60)
settings.load_profile("ncps")
