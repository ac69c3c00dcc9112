"""Imports that wait until the program knows its command, and cost the garbage collector nothing.

The objects that an import makes live as long as the process. A garbage collection looks at all of
them in vain; collections cost a quarter of a start. So the collector is off during the import, and
the objects are frozen after it: no later collection looks at them.
"""

from __future__ import annotations

import gc
import shlex
import sys
from pkgutil import resolve_name
from typing import Any


def named(name: str) -> Any:
    """Import and return the object that `module:attribute` names; then enable the collector."""
    gc.disable()
    try:
        return resolve_name(name)
    finally:
        gc.freeze()
        gc.enable()


def how_to_install(*packages: str) -> str:
    """Return the command that installs packages where this program finds them."""
    return f"{shlex.quote(sys.executable or 'python3')} -m pip install {shlex.join(packages)}"
