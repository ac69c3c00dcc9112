"""Trail: the caches through which a question has come, so that no question goes in a circle.

Each ncps adds its name to the Via header (RFC 9110 section 7.6.3) of its questions. A context
variable carries the trail of a request to all work that is begun for it. The job of a download or
of a search belongs to no request, and keeps the trail of the request that began it. A timer keeps
no trail, so code that a timer calls begins its work within `following`.

The first cache of a trail adds the number of the question to its name (`ncps-0123.5f`). By that
number, another cache knows whether two requests are one question that came by two ways. The number
is no comment, because proxies may remove comments from Via.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from secrets import token_hex
from typing import Final

from attrs import evolve, frozen

from ncps.errors import Malformed

MARK: Final = "x-cache"
"""The header in which a cache says how it obtained an answer."""

RING: Final = "ring"
"""Its value if the thing is not here, and the question came from the cache that would be asked."""

UNCERTAIN: Final = frozenset({RING, "away", "unsure"})
"""Its values for absences that nobody may remember."""

MAX_NAMES: Final = 64
"""A question that has come through more caches than this is refused."""

DISTANCES: Final = 4
"""Number of distances of questions: 0, 1 and 2 caches, and more."""

FAR_S: Final = 1.0
"""Seconds for which a question of the last distance waits for its turn, at most."""

_NAME = re.compile(r"[0-9.]+ (ncps-[0-9a-f]{4,64})(?:\.([0-9a-f]{1,32}))?")
_PROCESS: Final = token_hex(4)
"""Part of the numbers of questions, because the processes of a cache share one name."""

_numbers = count()


@frozen
class Trail:
    """The way of one question.

    :param names: names of the caches, in order; empty if a client of ours asks.
    :param has_come_round: whether our own name is among them.
    :param question: the number that the first cache gave the question; empty if it gave none.
    """

    names: tuple[str, ...] = ()
    has_come_round: bool = False
    question: str = ""

    def is_other_way_of(self, other: Trail) -> bool:
        """Return whether both are the same question, which came by two ways."""
        return self.names[:1] == other.names[:1] != () and self.question == other.question


NO_TRAIL: Final = Trail()
_current: ContextVar[Trail] = ContextVar("trail", default=NO_TRAIL)


def read_via(header: str, own_name: str) -> Trail:
    """Return the trail in a Via header. Raises Malformed if it is longer than `MAX_NAMES`."""
    parts = (_NAME.fullmatch(part.strip()) for part in header.split(","))
    caches = [match for match in parts if match is not None]
    if len(caches) > MAX_NAMES:
        raise Malformed(f"a request that has come through {len(caches)} caches")
    names = tuple(match[1] for match in caches)
    return Trail(names, own_name in names, (caches[0][2] or "") if caches else "")


def distance() -> int:
    """Return the number of caches that the present question came through, at most `DISTANCES` - 1.

    Two caches may ask each other for many things at the same time. If all these questions shared a
    few places, each cache would hold its places until the other one has a free place. So questions
    of each distance have places of their own. A question waits only for questions that have come
    through more caches.
    """
    return min(len(_current.get().names), DISTANCES - 1)


def via(own_name: str) -> str:
    """Return the Via header of a question that this cache asks now."""
    trail = _current.get()
    first, *others = (*trail.names, own_name)
    numbered = f"{first}.{trail.question}" if trail.question else first
    return ", ".join(f"1.1 {name}" for name in (numbered, *others))


def current() -> Trail:
    """Return the trail of the work that runs now."""
    return _current.get()


@contextmanager
def asking() -> Iterator[None]:
    """Give a number to the question of this block, unless it has a trail."""
    trail = _current.get()
    is_ours = not trail.names and not trail.question
    number = f"{_PROCESS}{next(_numbers):x}" if is_ours else trail.question
    with following(evolve(trail, question=number)):
        yield


@contextmanager
def following(trail: Trail) -> Iterator[None]:
    """Give this trail to all work that the block begins."""
    token = _current.set(trail)
    try:
        yield
    finally:
        _current.reset(token)
