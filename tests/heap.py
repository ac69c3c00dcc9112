"""The program, loaded and taken out of the sight of the garbage collector.

`trial --force-gc` collects several times around each test, so that an error that nobody handles is
told of the test that made it. Without this each collection looks at everything that was imported,
for 0.1 s a test.
"""

from __future__ import annotations

import gc

import ncps.process.crew  # noqa: F401 - imports all that a daemon needs

gc.collect()
gc.freeze()
