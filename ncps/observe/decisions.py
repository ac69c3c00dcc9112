"""Whether ncps logs decisions of the core and their reasons, at level debug.

There are several for each miss, so the core does not even write their texts unless they are logged.
"""

from __future__ import annotations

from typing import Final

_wanted: Final[set[bool]] = set()


def log_decisions(wanted: bool) -> None:
    """Set whether this process logs decisions from now on."""
    _wanted.clear()
    if wanted:
        _wanted.add(True)


def are_logged() -> bool:
    """Whether decisions are logged."""
    return bool(_wanted)
