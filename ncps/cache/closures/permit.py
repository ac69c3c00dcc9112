"""Permit: whether a client may act on one store path."""

from __future__ import annotations

from collections.abc import Callable

from ncps.errors import Refused

Permit = Callable[[str | None], object]
"""Raises Refused for the base name of a path on which the client may not act.

None stands for a path whose base name is unknown, and for an act that concerns no single path.
"""


def anything(base: str | None) -> None:
    """Permit everything."""


def is_permitted(permit: Permit, base: str) -> bool:
    """Return whether a path is permitted."""
    try:
        permit(base)
    except Refused:
        return False
    return True
