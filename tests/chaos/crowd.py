"""The crowd of a chaos run: clients by the number, what happens meanwhile, and the fine weather."""

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
from tests.chaos.doors import Door, Doors
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
"""Patience cut short, so that a run is long in requests and not in waiting; and all that is set
aside is kept, to be counted."""

DAMAGE_EVERY = 15
"""Requests from one damage to a stored file to the next."""


@frozen(kw_only=True)
class Scale:
    """How large a run is.

    :param kills: at which shares of the requests a daemon is ended: SIGKILL, but for `asks`.
    :param asks: at which of them by SIGTERM.
    :param turn_s: see `weather`.
    """

    requests: int
    clients: int
    things: int
    kills: tuple[float, ...]
    asks: frozenset[float] = frozenset()
    turn_s: float


def short(requests: int = 300, clients: int = 16) -> Scale:
    """The form that is part of every test run."""
    return Scale(requests=requests, clients=clients, things=90, kills=(0.4,), turn_s=5.0)


def long(requests: int = 10_000, clients: int = 64) -> Scale:
    """The form that finds what the short one does not."""
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
    """The common part of chaos runs; see `storm` and `sister`.

    :param directory: for the daemons; empty.
    :param tell: is told what happens.
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
    doors: Doors = field(init=False)
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
        return Client(self.world, self.score, self.doors)

    async def weather(self, *happenings: Coroutine[Any, Any, None]) -> None:
        """Let it storm, with these beside it, until all requests are done; then see all well."""
        self.world.may_be_absent = self.away_answer == "absent"
        await self.vandal.prepare()
        await self._fetch(self.world.things[0])
        self.tell("the storm begins")
        self.world.weather.begin()
        moods = asyncio.create_task(self.world.keep_moods())
        beside = asyncio.gather(self._damage_now_and_then(), *happenings)
        crowd = asyncio.gather(*(self._go_on() for _ in range(self.scale.clients)))
        try:
            # Where nobody starts again what was ended, clients would wait for ever.
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
        """Whether nobody asks any more: then nothing more needs to happen."""
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

    async def end(self, daemon: Daemon, door: Door, *, asks: bool = False) -> None:
        """End a daemon and start it again."""
        door.up.clear()
        self.tell(
            f"{'SIGTERM' if asks else 'SIGKILL'} to {door.number} after {self._done} requests"
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
        door.up.set()

    async def heal(self) -> None:
        """In fine weather everything can be had."""
        limit = asyncio.Semaphore(8)

        async def fetch(thing: Thing) -> None:
            async with limit:
                for _ in range(8):  # as long as absences are remembered and breakers open
                    if await self._fetch(thing):
                        return
                    await asyncio.sleep(2)
                self.score.blame("unhealed", thing.path.base_name)

        await asyncio.gather(*map(fetch, self.world.things))
        client = self.client()
        stored = await asyncio.to_thread(self.vandal.place.stored)
        for name in sorted(self.vandal.names.union(stored)):
            # Files that no narinfo names any more heal, and files without a row get one, if asked
            # for.
            await client.touch(f"nar/{name}")
        client.close()
