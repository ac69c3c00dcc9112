"""Walks: one for each closure that a client has begun to ask for, with its waiting items.

    a client's miss --> a walk --> references of its narinfo wait --> fetched --> theirs wait ...
                          |
            any request of a client for one of its items keeps it alive

A path belongs to the walk that reached it first, so that two walks fetch nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from ncps.aio.recent import RecentMap
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import is_digest
from ncps.ports import NarRecord

IDLE_S: Final = 15.0
"""A walk ends if no client has asked for an item of it for this many seconds."""

REMEMBERED_S: Final = 600.0
"""Seconds for which a path that a walk has reached is not fetched ahead again."""

MAX_REMEMBERED: Final = 40_000
MAX_WALKS: Final = 100
MAX_FAILURES: Final = 3
"""Failures of upstreams after which a walk ends."""

MAX_REFERENCES: Final = 5000
"""References of one narinfo that are looked at."""

DIGEST_LENGTH: Final = 32
_FIELD: Final = b"\nReferences: "


@define(eq=False)
class Walk:
    """One walk through a closure.

    :ivar asked_at: when a client last asked for one of its items; the clock's seconds.
    :ivar narinfos: hash parts of the paths that wait.
    :ivar nars: the NARs that wait.
    :ivar failures: number of failed fetches; an absence is no failure.
    """

    asked_at: float
    narinfos: deque[str] = field(factory=deque)
    nars: deque[NarRecord] = field(factory=deque)
    failures: int = 0


class Walks:
    """The walks that have waiting items, and the paths that walks have reached.

    :param max_queue: paths that wait in all walks together, at most; the same bound for NARs.
    :ivar of: the walk that has reached a path or NAR.
    """

    def __init__(self, clock: IReactorTime, max_queue: int) -> None:
        self._clock = clock
        self._max_queue = max_queue
        self._waiting: dict[Walk, None] = {}
        self.of: RecentMap[str | NarKey, Walk] = RecentMap(
            clock, ttl_s=REMEMBERED_S, max_entries=MAX_REMEMBERED
        )

    @property
    def narinfos(self) -> int:
        """Number of paths that wait."""
        return sum(len(walk.narinfos) for walk in self._waiting)

    @property
    def nars(self) -> int:
        """Number of NARs that wait."""
        return sum(len(walk.nars) for walk in self._waiting)

    def asked(self, name: str | NarKey) -> Walk | None:
        """Return the walk that reached a path or NAR, and keep it alive; None if there is none."""
        walk = self.of.get(name)
        if walk is not None:
            walk.asked_at = self._clock.seconds()
        return walk

    def begin(self, digest: str) -> Walk | None:
        """Begin a walk at a path; return None if `MAX_WALKS` have waiting items."""
        if len(self._waiting) >= MAX_WALKS:
            return None
        walk = Walk(self._clock.seconds())
        self.of.put(digest, walk)
        return walk

    def add_narinfos(self, walk: Walk, digests: Iterable[str]) -> int:
        """Queue the paths that no walk has reached; return how many had no room."""
        room, left_out = self._max_queue - self.narinfos, 0
        for digest in digests:
            if self.of.get(digest) is not None:
                continue
            if room <= 0:
                left_out += 1
                continue
            room -= 1
            self.of.put(digest, walk)
            walk.narinfos.append(digest)
            self._waiting[walk] = None
        return left_out

    def add_nar(self, walk: Walk, nar: NarRecord) -> bool:
        """Queue a NAR that no walk has reached; return False if it has no room."""
        if self.of.get(nar.key) is not None:
            return True
        if self.nars >= self._max_queue:
            return False
        self.of.put(nar.key, walk)
        walk.nars.append(nar)
        self._waiting[walk] = None
        return True

    def next_narinfo(self) -> tuple[Walk, str] | None:
        """Remove and return a waiting path, from each walk in turn; None if no path waits."""
        walk = next((walk for walk in self._waiting if walk.narinfos), None)
        if walk is None:
            return None
        digest = walk.narinfos.popleft()
        self._put_behind(walk)
        return walk, digest

    def next_nar(self) -> tuple[Walk, NarRecord] | None:
        """Remove and return a waiting NAR, from each walk in turn; None if no NAR waits."""
        walk = next((walk for walk in self._waiting if walk.nars), None)
        if walk is None:
            return None
        nar = walk.nars.popleft()
        self._put_behind(walk)
        return walk, nar

    def _put_behind(self, walk: Walk) -> None:
        """Put a walk behind the others; remove it if nothing waits in it."""
        del self._waiting[walk]
        if walk.narinfos or walk.nars:
            self._waiting[walk] = None

    def end_idle(self) -> int:
        """End the walks of which no client asked for an item; return how many items waited."""
        before = self._clock.seconds() - IDLE_S
        return sum(self.end(walk) for walk in list(self._waiting) if walk.asked_at < before)

    def end_all(self) -> int:
        """End all walks; return how many items waited in them."""
        return sum(self.end(walk) for walk in list(self._waiting))

    def end(self, walk: Walk) -> int:
        """End a walk; return how many items waited in it. Other walks may reach these again."""
        self._waiting.pop(walk, None)
        for digest in walk.narinfos:
            self.of.forget(digest)
        for nar in walk.nars:
            self.of.forget(nar.key)
        count = len(walk.narinfos) + len(walk.nars)
        walk.narinfos.clear()
        walk.nars.clear()
        return count


def references_in(text: bytes) -> list[str]:
    """Return the hash parts of the paths that a rendered narinfo refers to.

    Returns at most `MAX_REFERENCES`, because this runs in the reactor's thread.
    """
    begin = text.find(_FIELD)
    if begin < 0:
        return []
    begin += len(_FIELD)
    bases = text[begin : text.find(b"\n", begin)].split(b" ", MAX_REFERENCES)[:MAX_REFERENCES]
    digests = [base[:DIGEST_LENGTH].decode("ascii", "replace") for base in bases]
    return [digest for digest in digests if is_digest(digest)]
