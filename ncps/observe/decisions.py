"""Whether decisions are logged: lines of level debug that say what the core decides, and why.

There are several for each miss, so they are not even made unless they are wanted.
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
