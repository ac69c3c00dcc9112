"""Leases and notices of a process that is the only one of its cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from ncps.aio.keyed import KeyedLock, Release
from ncps.observe.metrics import Metrics
from ncps.ports import Lease, Leases, Notice, Notices


class LocalLease(Lease):
    """A held lease; it is never lost, because no other process can take it."""

    def __init__(self, release: Release) -> None:
        self._release: Release | None = release

    @property
    def is_lost(self) -> bool:
        return False

    @property
    def fence(self) -> int:
        return 0

    async def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class LocalLeases(Leases):
    """A set of leases that exclude only coroutines of this process.

    :param address: the address of this process for others.
    """

    def __init__(
        self,
        clock: IReactorTime,
        metrics: Metrics,
        *,
        address: str = "",
    ) -> None:
        self._clock = clock
        self._attempts = partial(metrics.lock_acquisitions, "exclusive", "local")
        self._hold_seconds = metrics.lock_hold_seconds("exclusive", "local")
        self._address = address
        self._names = KeyedLock()

    def __len__(self) -> int:
        return len(self._names)

    async def take(self, name: str) -> Lease:
        return self._taken(await self._names.acquire(name))

    async def try_hold(self, name: str) -> Lease | None:
        if name in self._names:
            self._attempts("contention").inc()
            return None
        return self._taken(await self._names.acquire(name))

    async def holder(self, name: str) -> str:
        return self._address if name in self._names else ""

    def _taken(self, leave: Release) -> LocalLease:
        self._attempts("success").inc()
        since = self._clock.seconds()

        def release() -> None:
            self._hold_seconds.observe(self._clock.seconds() - since)
            leave()

        return LocalLease(release)


class LocalNotices(Notices):
    """The notices of a process without others: none is sent, and none arrives."""

    is_alone = True

    async def publish(self, notice: Notice) -> None:
        pass

    def subscribe(self, subscriber: Callable[[Notice], None]) -> None:
        pass
