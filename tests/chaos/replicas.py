"""A storm over three replicas with one real database, one real bucket and one real Redis.

    A   has the sour origins, the relays and the swapper as upstreams
    B   has the sour origins and the relays
    C   has the sour origins, the relays and the private origin, and trusts its key; only C may
        serve paths that no other key has signed

Clients ask them in turn. Replicas are killed, and stopped for longer than leases last. The servers
are killed, restarted, paused, and refuse connections. Objects in the bucket are deleted, truncated,
replaced and planted. The seed determines everything except times.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from attrs import define, field

from tests.chaos import audit, vitals
from tests.chaos.bucket import Bucket, in_bucket
from tests.chaos.crowd import Crowd
from tests.chaos.damage import Vandal
from tests.chaos.endpoints import LIED_TO, TRUSTING, Endpoints
from tests.chaos.score import Score
from tests.chaos.troubles import Trouble, Troubles, catalogue
from tests.chaos.vitals import Bounds, Vitals, settle
from tests.chaos.weather import PRIVATE, SWAPPER
from tests.chaos.world import ANYWHERE, World
from tests.cluster.replicas import LEASE_S, Backends, Replica, setting

REPLICAS = 3
REQUESTS_PER_TROUBLE = 50
"""Number of requests for each event at a replica or at a server."""

STILL_S = (1.5 * LEASE_S, 3.0 * LEASE_S)
"""Seconds for which a replica is stopped, at least and at most."""

NOTICED_S = 0.5
"""Seconds after which clients leave a stopped replica, as a load balancer's check would."""


@define(eq=False)
class ReplicaStorm(Crowd):
    """A storm over three replicas.

    :param database: "PostgreSQL" or "MariaDB".
    """

    database: str = field(kw_only=True)
    replicas: list[Replica] = field(factory=list, init=False)
    _backends: Backends = field(init=False)
    _troubles: Troubles = field(init=False)

    def run(self) -> Score:
        """Do it all."""
        began = time.monotonic()
        scale = self.scale
        self.tell(f"seed {self.seed}: making {scale.things} objects")
        self.world = World(self.seed, count=scale.things, turn_s=scale.turn_s, has_private=True)
        self.world.mount()
        self._backends = Backends.new(self.database)
        try:
            self._backends.start()
            self._run()
        finally:
            self.world.stop()
            for replica in self.replicas:
                replica.kill()
            self._backends.close()
        for name, number in self.world.weather.drawn.items():
            self.score.add(f"fault: {name}", number)
        self.score.add("seconds", round(time.monotonic() - began))
        return self.score

    def _run(self) -> None:
        shared = self._backends.options()
        self.replicas = [self._replica(number, shared) for number in range(REPLICAS)]
        self.endpoints = Endpoints([replica.port for replica in self.replicas])
        bucket = Bucket(self._backends, setting(shared, "--cache-storage-s3-bucket"), self.world)
        self.vandal = Vandal.of(self.seed, self.world, self.score, bucket)
        self._troubles = Troubles(self.world, self.score, self.tell)
        bounds = self._bounds(*self.replicas)
        with ThreadPoolExecutor() as threads:  # with all upstreams away, at the same time
            list(threads.map(Replica.start, self.replicas))
        for endpoint in self.endpoints.all:
            endpoint.up.set()
        baselines = [Vitals.of(replica, bounds) for replica in self.replicas]
        self.world.start()
        try:
            asyncio.run(self._weather())
            self.world.stop()
            last = self.seed % REPLICAS  # the replica whose peers have ended
            for number in sorted(range(REPLICAS), key=lambda number: number == last):
                replica = self.replicas[number]
                left = self._bounds(replica) if number == last else bounds
                settle(replica, baselines[number], self.score, self.tell, left)
                replica.stop()
        except AssertionError as error:
            self.score.blame("bad exits", str(error))
        database = setting(shared, "--cache-database-url").rpartition("/")[2]
        stored = in_bucket(bucket, self._backends, database)
        audit.examine_store(stored, self.world, self.vandal.planted, self.score)
        for replica in self.replicas:
            audit.examine_log(replica, self.score)
        log = "\n".join(replica.log for replica in self.replicas)
        audit.examine_refusals(self.world, log, self.score)
        audit.count_downloads(self.world, self.kills, self.vandal.damages, log, self.score)

    def _bounds(self, *replicas: Replica) -> Bounds:
        servers = self._backends.database.port, self._backends.s3.port, self._backends.redis.port
        return vitals.among(*servers, *(replica.port for replica in replicas))

    def _replica(self, number: int, shared: Sequence[str]) -> Replica:
        own = {LIED_TO: frozenset([SWAPPER]), TRUSTING: frozenset([PRIVATE])}
        upstreams = self.world.upstreams_of(ANYWHERE | own.get(number, frozenset()))
        directory = self.directory / f"replica{number}"
        return Replica(directory, upstreams, shared=shared, options=self.options)

    async def _weather(self) -> None:
        await self.weather(self._trouble_now_and_then())
        await self.heal()

    async def _trouble_now_and_then(self) -> None:
        """Cause all kinds of troubles, one after the other, in an order that the seed decides."""
        chance = Random(f"{self.seed}/troubles")
        count = max(1, self.scale.requests // REQUESTS_PER_TROUBLE)
        kinds: list[Trouble | str] = [*catalogue(self._backends), "kill", "kill", "ask", "pause"]
        drawn: list[Trouble | str] = []
        while len(drawn) < count:
            drawn += chance.sample(kinds, len(kinds))
        for number, what in enumerate(drawn[:count]):
            await self.until((number + 0.5) / (count + 0.5))
            if self.is_over:
                return
            which = chance.randrange(REPLICAS)
            if isinstance(what, Trouble):
                await self._troubles.have(what, chance)
            elif what == "pause":
                await self._pause(which, chance.uniform(*STILL_S))
            else:
                await self.end(self.replicas[which], self.endpoints.all[which], asks=what == "ask")

    async def _pause(self, which: int, lasts_s: float) -> None:
        """Stop a replica for longer than its leases last, and let it continue."""
        replica, endpoint = self.replicas[which], self.endpoints.all[which]
        self.tell(f"SIGSTOP to {which} for {lasts_s:.1f} s")
        self.score.add("SIGSTOPs")
        self.kills.append(time.monotonic())
        self.world.lose()
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(NOTICED_S)
            endpoint.up.clear()
            await asyncio.sleep(lasts_s - NOTICED_S)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
            self.kills.append(time.monotonic())
            endpoint.up.set()
