"""Trail: through which caches a question has come, so that caches in a ring do not ask in circles.

Each ncps adds its name to the Via header (RFC 9110 section 7.6.3) of what it asks. The trail of a
request goes with everything that is begun for it, in a context variable: the job of a download or
of a search belongs to no request, and keeps the trail of the one that began it. A timer keeps none:
what a timer begins is begun within `following`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from attrs import frozen

from ncps.errors import Malformed

MARK: Final = "x-cache"
"""The header by which a cache says how it came by an answer."""

RING: Final = "ring"
"""Its value for "not here, and nobody was asked, since you come from where I would ask"."""

UNCERTAIN: Final = frozenset({RING, "away", "unsure"})
"""Its values for absences that are not to be remembered."""

MAX_NAMES: Final = 64
"""A question that has come through more caches than these is refused."""

_NAME = re.compile(r"[0-9.]+ (ncps-[0-9a-f]{4,64})")


@frozen
class Trail:
    """See the module.

    :param names: of caches, the first one first; empty: a client of ours asks.
    :param has_come_round: whether our own name is among them.
    """

    names: tuple[str, ...] = ()
    has_come_round: bool = False


NO_TRAIL: Final = Trail()
_current: ContextVar[Trail] = ContextVar("trail", default=NO_TRAIL)


def read_via(header: str, own_name: str) -> Trail:
    """The trail in a Via header. Malformed: it is longer than `MAX_NAMES`."""
    parts = (_NAME.fullmatch(part.strip()) for part in header.split(","))
    names = tuple(match[1] for match in parts if match is not None)
    if len(names) > MAX_NAMES:
        raise Malformed(f"a request that has come through {len(names)} caches")
    return Trail(names, own_name in names)


def via(own_name: str) -> str:
    """The Via header of a question that this cache asks now."""
    return ", ".join(f"1.1 {name}" for name in (*_current.get().names, own_name))


def current() -> Trail:
    """The trail of what runs now."""
    return _current.get()


@contextmanager
def following(trail: Trail) -> Iterator[None]:
    """Let what is begun within have this trail."""
    token = _current.set(trail)
    try:
        yield
    finally:
        _current.reset(token)
