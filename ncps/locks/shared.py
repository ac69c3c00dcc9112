"""SharedLeases: leases that several processes share, for every kind of backend.

A backend has only attempts: granted, or not. SharedLeases adds the waiting. Processes compete for a
name. Within a process the coroutines that want it take turns by a KeyedLock, so that a process
makes at most one attempt for a name at a time.

    turn begins ──► attempt ──► granted ──► held ──► given back ──► turn ends
                     ▲    │
                     │  taken
                     │    ▼
           the name was freed, or the next poll is due

An attempt is never interrupted, because its outcome would stay unknown. If its coroutine is
cancelled, the coroutine ends immediately, and a lease that is granted later is given back before
the turn ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.backoff import Backoff
from ncps.aio.keyed import KeyedEvent, KeyedLock, Release
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import within
from ncps.errors import Unavailable
from ncps.locks.degraded import DegradedGrants
from ncps.observe.metrics import Metrics
from ncps.ports import Lease, Leases


class Grant(Protocol):
    """A lease in its backend; see `ncps.ports.Lease`."""

    @property
    def is_lost(self) -> bool: ...

    @property
    def fence(self) -> int: ...

    async def give_back(self) -> None:
        """Free the name for others; called once. Never fails and never takes long."""


class LeaseBackend(Protocol):
    """A place for grants that all processes see.

    :ivar freed: set when a name may have become free.
    """

    freed: KeyedEvent

    @property
    def trouble(self) -> str:
        """The reason why the backend is away, as far as this process knows; empty if it is not."""

    async def start(self) -> None:
        """Connect, now or as soon as the backend answers.

        Raises Refused if the configuration cannot work.
        """

    async def stop(self) -> None:
        """Disconnect; leases that are still held are lost."""

    async def take(self, name: str) -> Grant | None:
        """Attempt once, within a deadline; None if the name is taken.

        Raises Unavailable if the backend is away.
        """

    async def holder(self, name: str) -> str:
        """See `ncps.ports.Leases`."""


def since_boot() -> float:
    """Return seconds of a monotonic clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
    """A set of leases from a backend, with waiting.

    :param polls: pauses between the attempts of a coroutine that waits.
    :param mode: the kind of backend in metrics.
    :param degraded: makes leases while the backend is away; None: no leases then.
    """

    def __init__(
        self,
        clock: IReactorTime,
        backend: LeaseBackend,
        *,
        polls: Backoff,
        metrics: Metrics,
        mode: str,
        degraded: DegradedGrants | None = None,
    ) -> None:
        self._clock = clock
        self._backend = backend
        self._polls = polls
        self._attempts = partial(metrics.lock_acquisitions, "exclusive", mode)
        self._hold_seconds = metrics.lock_hold_seconds("exclusive", mode)
        self._degraded = degraded
        self._names = KeyedLock()
        self._tasks = Tasks(clock)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def trouble(self) -> str:
        """The reason why the backend gives no leases now; empty if it does."""
        return self._backend.trouble

    @property
    def is_degraded(self) -> bool:
        """Whether leases that are granted now exclude only coroutines of this process."""
        return self._degraded is not None and bool(self._backend.trouble)

    async def start(self) -> None:
        """Connect, now or later. Raises Refused if the configuration cannot work."""
        await self._backend.start()

    async def stop(self, deadline_s: float) -> None:
        """Wait for running releases, then disconnect; leases that are still held are lost."""
        await self._tasks.stop(deadline_s)
        await self._backend.stop()

    async def take(self, name: str) -> Lease:
        turn = _Turn(await self._names.acquire(name))
        freed = self._backend.freed
        try:
            for pause in self._polls.pauses():
                event = freed.watch(name)
                try:
                    lease = await self._attempt(name, turn)
                    if lease is not None:
                        return lease
                    await self._rest(event, pause)
                finally:
                    freed.forget(name)
        finally:
            turn.end()
        raise AssertionError("pauses never end")

    async def try_hold(self, name: str) -> Lease | None:
        if name in self._names:
            self._attempts("contention").inc()
            return None
        turn = _Turn(await self._names.acquire(name))
        try:
            lease = await self._attempt(name, turn)
            if lease is None:
                self._attempts("contention").inc()
            return lease
        finally:
            turn.end()

    async def holder(self, name: str) -> str:
        if self._degraded is not None and name in self._degraded:
            return self._degraded.address
        return await self._backend.holder(name)

    async def _rest(self, event: Deferred[None], pause: float) -> None:
        """Wait for the event, at most `pause` seconds."""
        with suppress(DeferredTimeout):
            await within(self._clock, pause, event)

    async def _attempt(self, name: str, turn: _Turn) -> SharedLease | None:
        """Make one attempt. The turn passes to the lease; after a cancel, to the attempt."""
        outcome: Deferred[Grant | None] = Deferred()
        self._tasks.start("take a lease", self._take(name, turn, outcome))
        try:
            grant = await outcome
        except CancelledError:
            turn.pass_on()
            raise
        return self._held(grant, turn.pass_on()) if grant is not None else None

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
            return await self._backend.take(name)
        except Unavailable:
            self._attempts("failure").inc()
            if self._degraded is None:
                raise
            return self._degraded.take(name)

    def _held(self, grant: Grant, leave: Release) -> SharedLease:
        self._attempts("success").inc()
        since = self._clock.seconds()

        def release() -> Deferred[None]:
            self._hold_seconds.observe(self._clock.seconds() - since)
            done: Deferred[None] = Deferred()
            self._tasks.start("release a lease", self._give_back(grant, leave, done))
            return done

        return SharedLease(grant, release)

    async def _give_back(self, grant: Grant, leave: Release, done: Deferred[None]) -> None:
        """Give a lease back; its holder need not wait for this."""
        try:
            await grant.give_back()
        finally:
            leave()
            if not done.called:
                done.callback(None)


class _Turn:
    """The lock of a name in this process, which may pass from an attempt to a lease."""

    def __init__(self, leave: Release) -> None:
        self.leave = leave
        self._is_passed_on = False

    def pass_on(self) -> Release:
        """Return the function that ends the turn; its new owner calls it."""
        self._is_passed_on = True
        return self.leave

    def end(self) -> None:
        """End the turn unless it was passed on."""
        if not self._is_passed_on:
            self.leave()


def _is_cancel(error: BaseException) -> bool:
    return isinstance(error, CancelledError)
