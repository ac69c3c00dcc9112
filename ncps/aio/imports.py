"""Imports that wait until the program knows what it has to do, and leave the collector no work.

What an import makes lives as long as the process. A collection of garbage meanwhile walks through
all of it and finds nothing, and so does each one later, and those at the end of the process: a
quarter of what a start costs. So there are none until the import is done, and what is there then
is frozen: no collection looks at it again.
"""

from __future__ import annotations

import gc
from pkgutil import resolve_name
from typing import Any


def named(name: str) -> Any:
    """Import what `module:attribute` names; collections are on from then on."""
    gc.disable()
    try:
        return resolve_name(name)
    finally:
        gc.freeze()
        gc.enable()
