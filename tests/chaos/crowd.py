"""The common part of all storms: clients, events beside them, and the checks afterwards."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from tests.chaos.clients import Client
from tests.chaos.damage import Vandal
from tests.chaos.endpoints import Endpoint, Endpoints
from tests.chaos.score import Score
from tests.chaos.things import Thing
from tests.chaos.world import World
from tests.e2e.daemon import Daemon

OPTIONS = (
    *("--cache-upstream-dialer-timeout", "1s"),
    *("--cache-upstream-response-header-timeout", "1s"),
    *("--cache-upstream-nar-timeout", "1s"),
    *("--cache-upstream-idle-timeout", "1s"),
    *("--cache-download-resume-timeout", "15s"),
    *("--cache-quarantine-max-count", "10000"),
)
"""Short timeouts, so that a storm does not wait long; and a quarantine without limits, so that its
files can be counted."""

DAMAGE_EVERY = 15
"""Number of requests between two damages to stored files."""


@frozen(kw_only=True)
class Scale:
    """How large a run is.

    :param kills: shares of the requests after which a daemon is ended, by SIGKILL except in `asks`.
    :param asks: those of them after which it is ended by SIGTERM.
    :param turn_s: see `weather`.
    """

    requests: int
    clients: int
    things: int
    kills: tuple[float, ...]
    asks: frozenset[float] = frozenset()
    turn_s: float


def short(requests: int = 300, clients: int = 16) -> Scale:
    """Return the scale of the short storms, which are part of every test run."""
    return Scale(requests=requests, clients=clients, things=90, kills=(0.4,), turn_s=5.0)


def long(requests: int = 10_000, clients: int = 64) -> Scale:
    """Return the scale of the long storms, which find more faults."""
    return Scale(
        requests=requests,
        clients=clients,
        things=max(50, requests // 8),
        kills=(0.08, 0.16, 0.24, 0.32, 0.4, 0.5),
        asks=frozenset({0.32}),
        turn_s=12.0,
    )


@define(eq=False)
class Crowd(ABC):
    """The common part of storms; see `storm` and `replicas`.

    :param directory: for the daemons; empty.
    :param tell: is called with each event.
    :param away_answer: the daemons' answer while no upstream can be asked: absent or error.
    """

    seed: int
    scale: Scale
    directory: Path
    tell: Callable[[str], object]
    away_answer: str = "absent"
    score: Score = field(factory=Score)
    kills: list[float] = field(factory=list)
    world: World = field(init=False)
    vandal: Vandal = field(init=False)
    endpoints: Endpoints = field(init=False)
    _progress: asyncio.Condition = field(factory=asyncio.Condition, init=False)
    _done: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)

    @abstractmethod
    def run(self) -> Score:
        """Do it all."""

    @property
    def options(self) -> tuple[str, ...]:
        """The flags of daemons."""
        return (*OPTIONS, "--cache-upstream-away-answer", self.away_answer)

    def client(self) -> Client:
        """Make a client."""
        return Client(self.world, self.score, self.endpoints)

    async def weather(self, *happenings: Coroutine[Any, Any, None]) -> None:
        """Run the clients beside these until all requests are done; then check all objects."""
        self.world.may_be_absent = self.away_answer == "absent"
        await self.vandal.prepare()
        await self._fetch(self.world.things[0])
        self.tell("the storm begins")
        self.world.weather.begin()
        moods = asyncio.create_task(self.world.keep_moods())
        beside = asyncio.gather(self._damage_now_and_then(), *happenings)
        crowd = asyncio.gather(*(self._go_on() for _ in range(self.scale.clients)))
        try:
            # If a daemon were not started again, clients would wait for ever.
            await asyncio.wait([crowd, beside], return_when=asyncio.FIRST_EXCEPTION)
            await beside
            await crowd
        finally:
            crowd.cancel()
            self.world.weather.end()
            moods.cancel()
            await asyncio.gather(moods, return_exceptions=True)
        self.tell("the storm is over; everything is asked for once more")

    @property
    def is_over(self) -> bool:
        """Return whether all requests are done: then no more events are needed."""
        return self._done >= self.scale.requests

    async def _fetch(self, thing: Thing) -> bool:
        client = self.client()
        client.choose(thing)
        try:
            return await client.attempt("again", thing, client.install(thing, Random(0)))
        finally:
            client.close()

    async def _go_on(self) -> None:
        client = self.client()
        while self._next < self.scale.requests:
            number = self._next
            self._next += 1
            await client.run(number, Random(f"{self.seed}/op/{number}"))
            async with self._progress:
                self._done += 1
                self._progress.notify_all()
        client.close()

    async def until(self, share: float) -> None:
        """Wait until this share of the requests is done; see `is_over`."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= share * self.scale.requests)

    async def _damage_now_and_then(self) -> None:
        for at in range(DAMAGE_EVERY, self.scale.requests, DAMAGE_EVERY):
            await self.until(at / self.scale.requests)
            if self.is_over:
                return
            await self.vandal.act()

    async def end(self, daemon: Daemon, endpoint: Endpoint, *, asks: bool = False) -> None:
        """End a daemon and start it again."""
        endpoint.up.clear()
        self.tell(
            f"{'SIGTERM' if asks else 'SIGKILL'} to {endpoint.number} after {self._done} requests"
        )
        self.kills.append(time.monotonic())
        self.world.lose()
        self.score.add("SIGTERMs" if asks else "SIGKILLs")
        if asks:
            try:
                await asyncio.to_thread(daemon.stop)
            except AssertionError as error:
                self.score.blame("bad exits", str(error))
        else:
            await asyncio.to_thread(daemon.kill)
        try:
            await asyncio.to_thread(daemon.start)
        except AssertionError as error:
            self.score.blame("bad exits", str(error))
            raise
        endpoint.up.set()

    async def heal(self) -> None:
        """Check with healthy origins that all objects can be fetched."""
        limit = asyncio.Semaphore(8)

        async def fetch(thing: Thing) -> None:
            async with limit:
                for _ in range(8):  # until absences are forgotten and breakers closed
                    if await self._fetch(thing):
                        return
                    await asyncio.sleep(2)
                self.score.blame("unhealed", thing.path.base_name)

        await asyncio.gather(*map(fetch, self.world.things))
        client = self.client()
        stored = await asyncio.to_thread(self.vandal.place.stored)
        for name in sorted(self.vandal.names.union(stored)):
            # A request heals a file that no narinfo names any more, and gives a row to a file
            # without one.
            await client.touch(f"nar/{name}")
        client.close()
