"""Searches: one search for each narinfo, however many wait for it, also where caches form a ring.

A cache that asks us may be one that we ask, directly or through others. If both waited for each
other, each would wait until a deadline. The trail of a question (see `ncps.peering.trail`) tells
through which caches it has come:

    it bears our own name                      nobody is asked for it
    a search with the same trail is running    it is joined
    one that began at the same cache is        that one brings the answer there on its own way:
    running, with another trail                nobody is asked for this one
    one that began elsewhere is running        it is joined; if it may be waiting for us, then only
                                               for a moment, after which another one is begun
    none is running                            one is begun

So a search goes to each cache once. Searches wait for each other without a limit only in the order
of the names of the caches that they began at, and so never in a circle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import SingleFlight
from ncps.cache.answers import Absent, Outcome
from ncps.errors import NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.peering import trail
from ncps.ports import Leases, NarRecord

T = TypeVar("T")
Names = tuple[str, ...]

MOMENT_S = 0.25
"""How long a search is waited for that may be waiting for us."""

STALE_S = 2.0
"""A search older than this may be one that was given up where it began."""


class Searches(Generic[T]):
    """See the module."""

    def __init__(self, clock: IReactorTime, tasks: Tasks) -> None:
        self._clock = clock
        self._flights: SingleFlight[tuple[str, Names], T] = SingleFlight(tasks, "narinfo")
        self._began: dict[str, dict[Names, float]] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._began

    async def join(self, digest: str, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the search for a narinfo, beginning one unless one is running that will do.

        Raises Absent (RING) if nobody is to be asked, Unavailable if that cannot be told, else as
        the job.
        """
        ours = trail.current().names
        if trail.current().has_come_round:
            raise in_ring(digest)
        running = self._began.get(digest, {})
        if running and ours not in running:
            self._refuse_again(digest, running, ours)
            other = next(iter(running))
            waiting = Deferred.fromCoroutine(self._flights.join((digest, other), job))
            if ours and not (other and ours[0] < other[0]):
                waiting.addTimeout(MOMENT_S, self._clock)
            try:
                return await waiting
            except DeferredTimeout:
                pass
            except NotFound as error:  # what it was told by those it has asked before is not ours
                if error.is_certain:
                    raise
        return await self._flights.join((digest, ours), lambda: self._run(digest, ours, job))

    def _refuse_again(self, digest: str, running: dict[Names, float], ours: Names) -> None:
        """Refuse to search again for the same cache, on another way. Absent, Unavailable."""
        for other, began in running.items():
            if ours and other and other[0] == ours[0]:
                if self._clock.seconds() - began < STALE_S:
                    raise in_ring(digest)
                raise Unavailable(f"{digest} is being looked for already")

    async def _run(self, digest: str, ours: Names, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        running = self._began.setdefault(digest, {})
        running[ours] = self._clock.seconds()
        try:
            return await job()
        finally:
            del running[ours]
            if not running:
                del self._began[digest]


def in_ring(what: str) -> Absent:
    """The error for what is not here where nobody is asked for it."""
    return Absent(f"{what} is not here, and was asked for from here", outcome=Outcome.RING)


def refuse_ring(key: NarKey, nar: NarRecord | None) -> None:
    """Raise Absent (RING) for a NAR that is not stored if its question has come round."""
    if trail.current().has_come_round and (nar is None or not nar.is_stored):
        raise in_ring(key.file_name)


@asynccontextmanager
async def turn(leases: Leases, clock: IReactorTime, name: str) -> AsyncIterator[None]:
    """Hold a lease, so that one of several replicas searches. Unavailable.

    A search that began at another cache waits for the lease for a moment only, and then goes on
    without: the search that holds it may be waiting for this one.
    """
    hold = leases.hold(name)
    if not trail.current().names:
        async with hold:
            yield
        return
    waiting = Deferred.fromCoroutine(hold.__aenter__())
    try:
        await waiting.addTimeout(MOMENT_S, clock)
    except DeferredTimeout:
        yield
        return
    try:
        yield
    finally:
        await hold.__aexit__(None, None, None)
