"""Whether ncps logs decisions of the core and their reasons, at level debug.

There are several for each miss, so ncps does not even make them unless they are wanted.
"""

from __future__ import annotations

from typing import Final

_wanted: Final[set[bool]] = set()


def log_decisions(wanted: bool) -> None:
    """Have this process log decisions from now on, or not."""
    _wanted.clear()
    if wanted:
        _wanted.add(True)


def are_logged() -> bool:
    """Whether decisions are logged."""
    return bool(_wanted)
