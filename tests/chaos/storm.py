"""A storm over one daemon: origins, clients, kills, damage and the checks at the end."""

from __future__ import annotations

import asyncio
import time

from attrs import define, field

from tests.chaos import audit
from tests.chaos.crowd import Crowd
from tests.chaos.damage import Directory, Vandal
from tests.chaos.endpoints import Endpoints
from tests.chaos.score import Score
from tests.chaos.vitals import Vitals, settle
from tests.chaos.world import World
from tests.e2e.daemon import Daemon


@define(eq=False)
class Storm(Crowd):
    """A storm over one daemon."""

    daemon: Daemon = field(init=False)

    def run(self) -> Score:
        """Do it all."""
        began = time.monotonic()
        scale = self.scale
        self.tell(f"seed {self.seed}: making {scale.things} objects")
        self.world = World(self.seed, count=scale.things, turn_s=scale.turn_s)
        self.world.mount()
        self.daemon = Daemon(self.directory, self.world.upstreams, options=self.options)
        self.endpoints = Endpoints([self.daemon.port])
        self.vandal = Vandal.of(self.seed, self.world, self.score, Directory(self.daemon.storage))
        self.daemon.start()  # with all upstreams away
        self.endpoints.all[0].up.set()
        baseline = Vitals.of(self.daemon)
        self.world.start()
        try:
            asyncio.run(self._weather())
            self.world.stop()
            settle(self.daemon, baseline, self.score, self.tell)
            self.daemon.stop()
        except AssertionError as error:
            self.score.blame("bad exits", str(error))
        finally:
            self.daemon.kill()
            self.world.stop()
        stored = audit.local(self.daemon)
        audit.examine_store(stored, self.world, self.vandal.planted, self.score)
        audit.examine_log(self.daemon, self.score)
        audit.examine_refusals(self.world, self.daemon.log, self.score)
        audit.count_downloads(
            self.world, self.kills, self.vandal.damages, self.daemon.log, self.score
        )
        for name, number in self.world.weather.drawn.items():
            self.score.add(f"fault: {name}", number)
        self.score.add("seconds", round(time.monotonic() - began))
        return self.score

    async def _weather(self) -> None:
        await self.weather(self._kill_now_and_then())
        await self.heal()

    async def _kill_now_and_then(self) -> None:
        for share in self.scale.kills:
            await self.until(share)
            if self.is_over:
                return
            await self.end(self.daemon, self.endpoints.all[0], asks=share in self.scale.asks)
