"""Imports that wait until the program knows its command, and leave the garbage collector no work.

The objects that an import makes live as long as the process. A collection of garbage walks through
all of them and finds nothing; collections cost a quarter of a start. So there are none until the
import is done, and the objects of that moment are frozen: no later collection looks at them.
"""

from __future__ import annotations

import gc
import shlex
import sys
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


def how_to_install(*packages: str) -> str:
    """Return the command that installs packages where this program finds them."""
    return f"{shlex.quote(sys.executable or 'python3')} -m pip install {shlex.join(packages)}"
