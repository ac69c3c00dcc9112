"""Imports the program and the tests, and hides them from the garbage collector.

`trial --force-gc` collects around each test, so that an unhandled error is reported for the test
that caused it. Without this module each collection visits all imported objects, for 0.1 s a test.
A process of `trial -j` imports the modules of tests one by one; the objects of each import are
hidden, too, before the first test of the module is made.
"""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.runner import TestLoader

import ncps.process.crew  # noqa: F401 - imports all that a daemon needs
import tests.s3_models  # noqa: F401
from tests import authorities

for _extra in ("ncps.observe.otel.telemetry", "ncps.storage.s3.bucket", "psycopg", "pymysql"):
    with suppress(ImportError):  # an extra that is not installed
        import_module(_extra)


def freeze() -> None:
    """Collect garbage once, and hide all other objects from later collections."""
    gc.collect()
    gc.freeze()


def _freeze_imports() -> None:
    """Make trial's loader hide the objects of each import, but no test."""
    load = TestLoader.loadByName

    @wraps(load)
    def load_by_name(self: TestLoader, name: str, recurse: bool = False) -> Any:
        known = len(sys.modules)
        found = load(self, name, recurse)
        if len(sys.modules) == known:
            return found
        del found
        freeze()
        return load(self, name, recurse)

    TestLoader.loadByName = load_by_name  # type: ignore[method-assign]


authorities.trust()
if Path(sys.argv[0]).name == "workertrial.py":
    _freeze_imports()
freeze()
