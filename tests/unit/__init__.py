"""Unit tests: no reactor, no network, no threads, no sleeps."""

from hypothesis import HealthCheck, settings

import tests.heap  # noqa: F401

# The machine that runs the tests may be busy: neither a slow example is a failure, nor one that was
# slowly made.
settings.register_profile(
    "ncps", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ncps")
