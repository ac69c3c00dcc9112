"""Unit tests: no reactor, no sockets, no threads, no sleeps."""

import gc

from hypothesis import settings

# The machine that runs the tests may be busy: a slow example is no failure.
settings.register_profile("ncps", deadline=None, max_examples=60)
settings.load_profile("ncps")

# `trial --force-gc` collects around every test; what is imported so far never becomes garbage.
gc.collect()
gc.freeze()
