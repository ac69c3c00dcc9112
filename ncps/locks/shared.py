"""SharedLeases: leases that several processes have in common, whatever keeps them.

A registry (Redis, PostgreSQL, a directory of lock files) knows only attempts: granted, or not.
Here is what is the same for all of them: the processes compete, and within each of them those who
want one name stand in line, so that a process has one attempt under way for a name at most.

    turn in the line ──► attempt ──► granted ──► held ──► given back ──► turn over
                          ▲    │
                          │  taken
                          │    ▼
                  a bell rings, or the next poll is due

An attempt under way is never broken off, because its outcome would stay unknown: who stops waiting
leaves at once, and what is granted later is given back before the turn is over.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.errors import Unavailable
from ncps.locks.bells import Bells
from ncps.locks.lines import Leave, Lines
from ncps.locks.local import Observer
from ncps.ports import Lease, Leases


class Grant(Protocol):
    """What a registry gives: see `ncps.ports.Lease`."""

    @property
    def is_lost(self) -> bool: ...

    @property
    def fence(self) -> int: ...

    async def give_back(self) -> None:
        """Let somebody else have it; called once. Never fails and never takes long."""


class Registry(Protocol):
    """Where grants are written down for all processes to see.

    :ivar bells: rung when a name may have become free.
    """

    bells: Bells

    @property
    def trouble(self) -> str:
        """Why leases cannot be had now; empty if they can, as far as is known."""

    async def start(self) -> None:
        """Get ready. Refused: will never work as configured. What is merely away may come back."""

    async def stop(self) -> None:
        """Give up everything."""

    async def take(self, name: str) -> Grant | None:
        """Attempt once, within a deadline; None if somebody has it. Unavailable."""

    async def holder(self, name: str) -> str:
        """See `ncps.ports.Leases`."""


def since_boot() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen(kw_only=True)
class Polls:
    """How often those who wait look for themselves.

    :param initial_s: pause after the first attempt; each further one is twice as long.
    :param longest_s: but no longer than this.
    :param is_jittered: whether pauses are shortened at random, by half at most.
    """

    initial_s: float
    longest_s: float
    is_jittered: bool = True

    def pauses(self) -> Iterator[float]:
        """Yield the pauses of one who waits, in seconds."""
        pause = self.initial_s
        while True:
            pause = min(pause, self.longest_s)
            yield pause * random.uniform(0.5, 1.0) if self.is_jittered else pause  # noqa: S311
            pause *= 2


class _Alone:
    """A grant of this process to itself, while the registry is away."""

    is_lost = False

    def __init__(self, fence: int) -> None:
        self.fence = fence

    async def give_back(self) -> None:
        """There is nobody to give it back to."""


class SharedLease(Lease):
    """A held lease."""

    def __init__(self, grant: Grant, release: Callable[[], Deferred[None]]) -> None:
        self._grant = grant
        self._release: Callable[[], Deferred[None]] | None = release

    @property
    def is_lost(self) -> bool:
        return self._grant.is_lost

    @property
    def fence(self) -> int:
        return self._grant.fence

    async def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            await release()


class SharedLeases(Leases):
    """See the module.

    :param may_degrade: whether this process goes on with leases of its own while the registry is
        away; several processes may then do the same work at one time.
    :param wall: seconds since 1970, for the fences of that time, which should exceed those before.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        *,
        polls: Polls,
        observe: Observer = lambda _what, _s: None,
        may_degrade: bool = False,
        address: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._polls = polls
        self._observe = observe
        self._may_degrade = may_degrade
        self._address = address
        self._wall = wall
        self._lines = Lines()
        self._tasks = Tasks(clock)
        self._alone: dict[str, _Alone] = {}
        self._last_fence = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def trouble(self) -> str:
        """Why leases cannot be had from the registry now; empty if they can."""
        return self._registry.trouble

    @property
    def is_degraded(self) -> bool:
        """Whether leases given now are of this process alone."""
        return self._may_degrade and bool(self._registry.trouble)

    async def start(self) -> None:
        """Connect. Refused: will never work as configured; what is away may come back later."""
        await self._registry.start()

    async def stop(self, deadline_s: float) -> None:
        """Wait for what is being given back, then disconnect; what is still held is lost."""
        await self._tasks.stop(deadline_s)
        await self._registry.stop()

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:
        lease = await self._wait(name)
        try:
            yield lease
        finally:
            await lease.release()

    async def try_hold(self, name: str) -> Lease | None:
        if name in self._lines:
            self._observe("contention", 0.0)
            return None
        turn = _Turn(await self._lines.turn(name))
        try:
            lease = await self._attempt(name, turn)
            if lease is None:
                self._observe("contention", 0.0)
            return lease
        finally:
            turn.end()

    async def holder(self, name: str) -> str:
        if name in self._alone:
            return self._address
        return await self._registry.holder(name)

    async def _wait(self, name: str) -> SharedLease:
        turn = _Turn(await self._lines.turn(name))
        bells = self._registry.bells
        try:
            for pause in self._polls.pauses():
                bell = bells.hang(name)
                try:
                    lease = await self._attempt(name, turn)
                    if lease is not None:
                        return lease
                    await self._rest(bell, pause)
                finally:
                    bells.take_down(name)
        finally:
            turn.end()
        raise AssertionError("pauses never end")

    async def _rest(self, bell: Deferred[None], pause: float) -> None:
        """Wait until the bell rings, at most so many seconds."""

        def ring() -> None:
            if not bell.called:
                bell.callback(None)

        timer = self._clock.callLater(pause, ring)
        try:
            await bell
        finally:
            if timer.active():
                timer.cancel()

    async def _attempt(self, name: str, turn: _Turn) -> SharedLease | None:
        """Attempt once; the turn passes to the lease, or to the attempt if it is not waited for."""
        outcome: Deferred[Grant | None] = Deferred()
        self._tasks.start("take a lease", self._take(name, turn, outcome))
        try:
            grant = await outcome
        except CancelledError:
            turn.pass_on()
            raise
        return self._held(name, grant, turn.pass_on()) if grant is not None else None

    async def _take(self, name: str, turn: _Turn, outcome: Deferred[Grant | None]) -> None:
        try:
            grant = await self._grant(name)
        except BaseException as error:
            if outcome.called:
                turn.leave()
            else:
                outcome.errback(Unavailable("stopped") if _is_cancel(error) else error)
            if isinstance(error, Unavailable):
                return
            raise
        if not outcome.called:
            outcome.callback(grant)
            return
        if grant is not None:
            await grant.give_back()
        turn.leave()

    async def _grant(self, name: str) -> Grant | None:
        try:
            return await self._registry.take(name)
        except Unavailable:
            self._observe("failure", 0.0)
            if not self._may_degrade:
                raise
        self._last_fence = max(self._last_fence + 1, int(self._wall() * 1e6))
        return self._alone.setdefault(name, _Alone(self._last_fence))

    def _held(self, name: str, grant: Grant, leave: Leave) -> SharedLease:
        self._observe("success", 0.0)
        since = self._clock.seconds()

        def release() -> Deferred[None]:
            self._observe("held", self._clock.seconds() - since)
            done: Deferred[None] = Deferred()
            self._tasks.start("release a lease", self._give_back(name, grant, leave, done))
            return done

        return SharedLease(grant, release)

    async def _give_back(self, name: str, grant: Grant, leave: Leave, done: Deferred[None]) -> None:
        """Give back although whoever held it may not wait for that."""
        try:
            await grant.give_back()
        finally:
            if self._alone.get(name) is grant:
                del self._alone[name]
            leave()
            if not done.called:
                done.callback(None)


class _Turn:
    """A turn in the line, ended by whoever has it at the end."""

    def __init__(self, leave: Leave) -> None:
        self.leave = leave
        self._is_passed_on = False

    def pass_on(self) -> Leave:
        """Return what ends the turn, for another to call."""
        self._is_passed_on = True
        return self.leave

    def end(self) -> None:
        """End the turn unless it was passed on."""
        if not self._is_passed_on:
            self.leave()


def _is_cancel(error: BaseException) -> bool:
    return isinstance(error, CancelledError)
