"""MemoryLeases: leases that a test can take away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred

from ncps.errors import NcpsError
from ncps.ports import Lease, Leases


class MemoryLease(Lease):
    """A lease; `is_lost` is for the test to set."""

    def __init__(self, leases: MemoryLeases, name: str) -> None:
        self.name = name
        self.lost = False
        self._leases: MemoryLeases | None = leases

    @property
    def is_lost(self) -> bool:
        return self.lost

    async def release(self) -> None:
        leases, self._leases = self._leases, None
        if leases is not None:
            leases.pass_on(self.name)


class MemoryLeases(Leases):
    """See `ncps.ports.Leases`.

    :param failing: raised by every attempt while it is set.
    :param held: what is held now, by name.
    """

    def __init__(self) -> None:
        self.failing: NcpsError | None = None
        self.held: dict[str, MemoryLease] = {}
        self._lines: dict[str, list[Deferred[None]]] = {}

    def _take(self, name: str) -> MemoryLease:
        self.held[name] = lease = MemoryLease(self, name)
        return lease

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing.with_traceback(None)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:
        self._check()
        if name in self.held:
            line = self._lines.setdefault(name, [])
            turn: Deferred[None] = Deferred(line.remove)
            line.append(turn)
            await turn
        lease = self._take(name)
        try:
            yield lease
        finally:
            await lease.release()

    async def try_hold(self, name: str) -> Lease | None:
        self._check()
        return None if name in self.held else self._take(name)

    def pass_on(self, name: str) -> None:
        """Let the first in line have the lease."""
        line = self._lines.get(name)
        if line:
            line.pop(0).callback(None)
        else:
            del self.held[name]
            self._lines.pop(name, None)
