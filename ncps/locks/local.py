"""LocalLeases: mutual exclusion within this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from ncps.ports import Lease, Leases

Observer = Callable[[str, float], object]
"""Told of each attempt's result ("success", "contention") or hold: ("held", seconds)."""


@define(eq=False)
class _Place:
    lock: DeferredLock
    interested: int = 0


class LocalLease(Lease):
    """A held lease; never lost, since nobody else can take it."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    @property
    def is_lost(self) -> bool:
        return False

    async def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class LocalLeases(Leases):
    """See `ncps.ports.Leases`; a name is forgotten when nobody holds it or waits for it."""

    def __init__(self, clock: IReactorTime, observe: Observer = lambda _what, _s: None) -> None:
        self._clock = clock
        self._observe = observe
        self._places: dict[str, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:
        place = self._places.setdefault(name, _Place(DeferredLock()))
        place.interested += 1
        try:
            await place.lock.acquire()
        except BaseException:
            self._left(name, place)
            raise
        lease = self._taken(name, place)
        try:
            yield lease
        finally:
            await lease.release()

    async def try_hold(self, name: str) -> Lease | None:
        if name in self._places:
            self._observe("contention", 0.0)
            return None
        place = self._places[name] = _Place(DeferredLock(), 1)
        await place.lock.acquire()
        return self._taken(name, place)

    def _taken(self, name: str, place: _Place) -> LocalLease:
        self._observe("success", 0.0)
        since = self._clock.seconds()

        def release() -> None:
            self._observe("held", self._clock.seconds() - since)
            place.lock.release()
            self._left(name, place)

        return LocalLease(release)

    def _left(self, name: str, place: _Place) -> None:
        place.interested -= 1
        if not place.interested:
            del self._places[name]
