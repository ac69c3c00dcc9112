"""A chaos run from start to end: a world, a daemon, a crowd, kills and damage, and the audit."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from tests.chaos import audit
from tests.chaos.audit import Vitals
from tests.chaos.clients import Client, Gate
from tests.chaos.score import Score
from tests.chaos.world import Thing, World
from tests.e2e.daemon import Daemon

OPTIONS = (
    *("--cache-upstream-dialer-timeout", "1s"),
    *("--cache-upstream-response-header-timeout", "1s"),
    *("--cache-upstream-idle-timeout", "1s"),
    *("--cache-download-resume-timeout", "15s"),
)
"""Patience cut short, so that a run is long in requests and not in waiting."""

SETTLE_S = 15.0
DAMAGE_EVERY = 25


@frozen(kw_only=True)
class Scale:
    """How large a run is.

    :param kills: at which shares of the requests the daemon is ended: SIGKILL, but for `asks`.
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
class Storm:
    """See the module.

    :param directory: for the daemon; empty.
    :param tell: is told what happens.
    """

    seed: int
    scale: Scale
    directory: Path
    tell: Callable[[str], object]
    score: Score = field(factory=Score)
    kills: list[float] = field(factory=list)
    damages: dict[str, list[float]] = field(factory=dict)
    world: World = field(init=False)
    daemon: Daemon = field(init=False)
    baseline: Vitals = field(init=False)
    _names: dict[str, str] = field(factory=dict, init=False)
    _gate: Gate = field(factory=Gate, init=False)
    _progress: asyncio.Condition = field(factory=asyncio.Condition, init=False)
    _done: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)

    def run(self) -> Score:
        """Do it all."""
        began = time.monotonic()
        scale = self.scale
        self.tell(f"seed {self.seed}: making {scale.things} objects")
        self.world = World(self.seed, count=scale.things, turn_s=scale.turn_s)
        self.world.mount()
        self.daemon = Daemon(self.directory, self.world.upstreams, options=OPTIONS)
        self.daemon.start()  # with all upstreams away
        self.baseline = Vitals.of(self.daemon)
        self.world.start()
        try:
            asyncio.run(self._weather())
            self._settle()
            self.daemon.stop()
        except AssertionError as error:
            self.score.blame("bad exits", str(error))
        finally:
            self.daemon.kill()
            self.world.stop()
        audit.examine_store(self.daemon, self.world, self.score)
        audit.examine_log(self.daemon, self.score)
        audit.examine_refusals(self.world, self.daemon.log, self.score)
        audit.count_downloads(self.world, self.kills, self.damages, self.daemon.log, self.score)
        for name, number in self.world.weather.drawn.items():
            self.score.add(f"fault: {name}", number)
        self.score.add("seconds", round(time.monotonic() - began))
        return self.score

    # The crowd

    def _client(self) -> Client:
        return Client(self.world, self.score, self._gate, self.daemon.port)

    async def _weather(self) -> None:
        self._gate.up.set()
        await self._fetch(self.world.things[0])
        self.tell("the storm begins")
        self.world.weather.begin()
        moods = asyncio.create_task(self.world.keep_moods())
        others = [asyncio.create_task(self._kill_now_and_then())]
        others.append(asyncio.create_task(self._damage_now_and_then()))
        async with asyncio.TaskGroup() as crowd:
            for _ in range(self.scale.clients):
                crowd.create_task(self._go_on())
        self.world.weather.end()
        self.tell("the storm is over; everything is asked for once more")
        for task in (*others, moods):
            task.cancel()
        await asyncio.gather(*others, moods, return_exceptions=True)
        await self._heal()

    async def _fetch(self, thing: Thing) -> bool:
        client = self._client()
        try:
            return await client.attempt("again", thing, client.install(thing, Random(0)))
        finally:
            client.close()

    async def _go_on(self) -> None:
        client = self._client()
        while self._next < self.scale.requests:
            number = self._next
            self._next += 1
            await client.run(number, Random(f"{self.seed}/op/{number}"))
            async with self._progress:
                self._done += 1
                self._progress.notify_all()
        client.close()

    async def _kill_now_and_then(self) -> None:
        for share in self.scale.kills:
            await self._until(share * self.scale.requests)
            self._gate.up.clear()
            if share in self.scale.asks:
                self.tell(f"SIGTERM after {self._done} requests")
                self.kills.append(time.monotonic())
                self.world.lose(time.monotonic() - audit.JUST_BEFORE_S)
                try:
                    await asyncio.to_thread(self.daemon.stop)
                except AssertionError as error:
                    self.score.blame("bad exits", str(error))
                self.score.add("SIGTERMs")
            else:
                self.tell(f"SIGKILL after {self._done} requests")
                self.kills.append(time.monotonic())
                self.world.lose(time.monotonic() - audit.JUST_BEFORE_S)
                await asyncio.to_thread(self.daemon.kill)
                self.score.add("SIGKILLs")
            try:
                await asyncio.to_thread(self.daemon.start)
            except AssertionError as error:
                self.score.blame("bad exits", str(error))
                raise
            self._gate.up.set()

    async def _until(self, number: float) -> None:
        """Wait until so many requests are done."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= number)

    async def _damage_now_and_then(self) -> None:
        """Delete and truncate stored files behind the daemon's back."""
        chance = Random(f"{self.seed}/damage")
        at = 0
        while True:
            at += DAMAGE_EVERY
            await self._until(at)
            stored = sorted(self.daemon.stored_nars())
            if stored:
                self._damage(chance.choice(stored), chance)

    def _damage(self, path: Path, chance: Random) -> None:
        try:
            content = path.read_bytes()
            now = time.monotonic()
            if chance.random() < 0.5:
                path.unlink()
            else:
                path.chmod(0o600)
                with path.open("rb+") as file:
                    file.truncate(chance.randrange(len(content)))
                path.chmod(0o400)
        except OSError:  # gone meanwhile
            return
        self.score.add("stored files damaged")
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.world.by_sha256:  # else it had been damaged before
            self._names[path.name] = sha256
        true = self._names.get(path.name, "")
        self._names.setdefault(path.name, "")
        self.damages.setdefault(true, []).append(now)
        self.world.whole.pop(f"nar/{path.name}", None)

    # The end

    async def _heal(self) -> None:
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
        client = self._client()
        for name in sorted(self._names):  # URLs that no narinfo names any more heal, too, if asked
            await client.touch(f"/nar/{name}")
        client.close()

    def _settle(self) -> None:
        """Without clients and upstreams the daemon holds no more than at the beginning."""
        self.world.stop()
        deadline = time.monotonic() + SETTLE_S
        while True:
            now = Vitals.of(self.daemon)
            beyond, left = now.exceeds(self.baseline), audit.unfinished(self.daemon)
            if (not beyond and not left) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.tell(f"at first {self.baseline}, at the end {now}")
        self.score.blame("leaked threads", str(now), beyond.pop("threads", 0))
        self.score.blame("leaked descriptors", str(beyond), sum(beyond.values()))
        self.score.blame("leaked spools", str(left), len(left))
        self.score.add("peak memory of the last life, MiB", now.peak_kib // 1024)
