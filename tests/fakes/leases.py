"""MemoryLeases and MemoryNotices: what a test can take away, and what it can listen to."""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define
from twisted.internet.defer import Deferred

from ncps.errors import NcpsError
from ncps.ports import Lease, Leases, Notice, Notices


class MemoryLease(Lease):
    """A lease; `is_lost` is for the test to set."""

    def __init__(self, leases: MemoryLeases, name: str, fence: int) -> None:
        self.name = name
        self.lost = False
        self.address = leases.address
        self._fence = fence
        self._leases: MemoryLeases | None = leases

    @property
    def is_lost(self) -> bool:
        return self.lost

    @property
    def fence(self) -> int:
        return self._fence

    async def release(self) -> None:
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.pass_on(self.name)


@define
class _Table:
    """Leases that all replicas see.

    :ivar fence: of the last grant of any name.
    """

    held: dict[str, MemoryLease] = Factory(dict)
    lines: dict[str, list[Deferred[None]]] = Factory(dict)
    fence: int = 0


class MemoryLeases(Leases):
    """See `ncps.ports.Leases`.

    :param failing: raised by every attempt while it is set.
    :param beside: another replica whose leases these are, too.
    """

    def __init__(self, address: str = "", *, beside: MemoryLeases | None = None) -> None:
        self.failing: NcpsError | None = None
        self.address = address
        self._table: _Table = beside._table if beside else _Table()

    @property
    def held(self) -> dict[str, MemoryLease]:
        """Leases that are held now, by name."""
        return self._table.held

    def _take(self, name: str) -> MemoryLease:
        self._table.fence += 1
        self.held[name] = lease = MemoryLease(self, name, self._table.fence)
        return lease

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing.with_traceback(None)

    async def take(self, name: str) -> Lease:
        self._check()
        if name in self.held:
            line = self._table.lines.setdefault(name, [])
            turn: Deferred[None] = Deferred(line.remove)
            line.append(turn)
            await turn
        return self._take(name)

    async def try_hold(self, name: str) -> Lease | None:
        self._check()
        return None if name in self.held else self._take(name)

    async def holder(self, name: str) -> str:
        self._check()
        lease = self.held.get(name)
        return lease.address if lease is not None else ""

    def pass_on(self, name: str) -> None:
        """Let the first in line have the lease."""
        line = self._table.lines.get(name)
        if line:
            line.pop(0).callback(None)
        else:
            del self.held[name]
            self._table.lines.pop(name, None)


class MemoryNotices(Notices):
    """See `ncps.ports.Notices`.

    :param beside: another replica on the same line.
    :ivar published: the notices published here, oldest first.
    """

    def __init__(self, *, beside: MemoryNotices | None = None) -> None:
        self.published: list[Notice] = []
        self._subscribers: list[Callable[[Notice], None]] = []
        self._replicas: list[MemoryNotices] = beside._replicas if beside else []
        self._replicas.append(self)

    async def publish(self, notice: Notice) -> None:
        self.published.append(notice)
        for replica in self._replicas:
            if replica is not self:
                replica.tell(notice)

    def subscribe(self, told: Callable[[Notice], None]) -> None:
        self._subscribers.append(told)

    def tell(self, notice: Notice) -> None:
        """Let the subscribers here hear it."""
        for told in self._subscribers:
            told(notice)
