"""Probes: checks the health of upstreams in the background, so that no client waits for it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ncps.aio.tasks import Tasks, Ticker
from ncps.aio.waiting import sleep
from ncps.ask.choose import Upstreams
from ncps.ask.health import Candidate
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.peering import trail
from ncps.peering.trail import NO_TRAIL

HEALTHY_S = 60.0
FAILING_S = 1.0
REFUSED_S = 10.0
"""Seconds between probes of an upstream that answers probes, and nevertheless has no say."""


class Probes:
    """Asks each upstream for its nix-cache-info: rarely while it works, often while it does not.

    After a failed question, an upstream is probed often until it works.
    """

    def __init__(self, clock: IReactorTime, tasks: Tasks, upstreams: Upstreams) -> None:
        self._clock = clock
        self._tasks = tasks
        self._upstreams = upstreams
        self._looked_after: set[Candidate] = set()
        self._probing: dict[Candidate, Deferred[None]] = {}

    def start(self) -> None:
        """Begin to probe; if called again, probe also new upstreams. Ends with the tasks."""
        current = self._upstreams.candidates
        for candidate in [former for former in self._probing if former not in current]:
            self._probing.pop(candidate).cancel()
        for candidate in current:
            if candidate not in self._probing:
                self._probing[candidate] = self._start_one(candidate)

    def _start_one(self, candidate: Candidate) -> Deferred[None]:
        async def tick() -> None:
            await self.probe(candidate)

        def pause() -> float:
            if candidate.health.is_in_doubt:
                return FAILING_S
            return HEALTHY_S if candidate.health.has_say else REFUSED_S

        candidate.doubted = partial(self._look_after, candidate)
        name = f"probe {candidate.upstream.name}"
        return self._tasks.start(name, Ticker(self._clock, name, tick, pause).run())

    def _look_after(self, candidate: Candidate) -> None:
        if candidate not in self._looked_after:
            self._looked_after.add(candidate)
            with trail.following(NO_TRAIL):
                self._tasks.start(
                    f"look after {candidate.upstream.name}", self._until_working(candidate)
                )

    async def _until_working(self, candidate: Candidate) -> None:
        try:
            while candidate.health.is_in_doubt and candidate in self._upstreams.candidates:
                await sleep(self._clock, FAILING_S)
                await self.probe(candidate)
        finally:
            self._looked_after.discard(candidate)

    async def probe(self, candidate: Candidate) -> None:
        """Send one probe, unless the breaker forbids that now."""
        if not candidate.health.may_ask:
            return
        # Only an answer matters, not its contents; `Candidate` notes and logs it.
        with suppress(NotFound, Corrupt, Unavailable):
            await candidate.ask(lambda upstream: upstream.cache_info(), self._clock, is_probe=True)
