"""A backend in memory whose answers a test can delay."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.aio.keyed import KeyedEvent
from ncps.errors import NcpsError
from ncps.locks.shared import Grant, LeaseBackend


class MemoryGrant(Grant):
    """A grant; the test sets `is_lost`."""

    is_lost = False

    def __init__(self, backend: MemoryBackend, name: str, fence: int) -> None:
        self._backend = backend
        self._name = name
        self._fence = fence

    @property
    def fence(self) -> int:
        return self._fence

    async def give_back(self) -> None:
        if self._backend.gate is not None:
            await self._backend.gate
        del self._backend.held[self._name]
        if self._backend.announces:
            self._backend.freed.set(self._name)


class MemoryBackend(LeaseBackend):
    """The state that several processes see.

    :ivar gate: while it is set, answers wait for it.
    :ivar failing: the error of every attempt while it is set.
    :ivar attempts: number of attempts.
    :ivar announces: whether releases are announced to waiting processes.
    """

    def __init__(self) -> None:
        self.freed = KeyedEvent()
        self.held: dict[str, str] = {}
        self.gate: Deferred[None] | None = None
        self.failing: NcpsError | None = None
        self.attempts = 0
        self.announces = True
        self.is_running = False
        self._fence = 0

    @property
    def trouble(self) -> str:
        return "" if self.failing is None else str(self.failing)

    async def start(self) -> None:
        self.is_running = True

    async def stop(self) -> None:
        self.is_running = False

    async def take(self, name: str) -> MemoryGrant | None:
        self.attempts += 1
        if self.gate is not None:
            await self.gate
        if self.failing is not None:
            raise self.failing.with_traceback(None)
        if name in self.held:
            return None
        self.held[name] = "us"
        self._fence += 1
        return MemoryGrant(self, name, self._fence)

    async def holder(self, name: str) -> str:
        return self.held.get(name, "")
