"""Replicas with leases at a majority of three or five Redis servers."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster import faults, streaming
from tests.cluster.replicas import LEASE_S, ClusterStage
from tests.integration.servers import shared
from tests.integration.servers.redis import Redis
from tests.waiting import wait_until

HOUR_S = 3600.0
MINUTES_S = 600.0
"""S3 refuses clocks that are a quarter of an hour wrong."""
SETTLED_S = 3.0
"""Seconds after which replicas have found a server again and given it their leases."""


class Redlock(ClusterStage):
    """Shares three servers."""

    under_load: Any = faults.Faults.under_load
    goes_on: Any = faults.Faults.goes_on
    settles: Any = faults.Faults.settles
    stored_under: Any = streaming.Streaming.stored_under

    def setUp(self) -> None:
        super().setUp()
        self.use(list(shared.redis_servers()))

    def use(self, servers: list[Redis]) -> None:
        """Make replicas use these servers."""
        self.servers = servers
        self.share(
            "--cache-redis-addrs", ",".join(f"127.0.0.1:{server.port}" for server in servers)
        )


class MinorityTests(Redlock):
    def test_two_of_five_at_a_time(self) -> None:
        """Two are killed and started without data, or stopped: no client notices."""
        more = [Redis(), Redis()]
        for server in more:
            self.addCleanup(server.close)
            server.start()
        self.use([*self.servers, *more])

        def trouble() -> None:
            for pair in (more, self.servers[:2]):
                for server in pair:
                    server.kill()
                time.sleep(1.0)
                for server in pair:
                    server.start()
                time.sleep(SETTLED_S)
            for server in more:
                server.freeze()
            time.sleep(LEASE_S + 1.0)
            for server in more:
                server.thaw()

        for load in self.under_load(trouble):
            self.assertEqual({200}, set(load.statuses))


class LeaseTests(Redlock):
    test_holder_that_sleeps_past_its_lease: Any = (
        streaming.Streaming.test_holder_that_sleeps_past_its_lease
    )

    def test_clocks_apart(self) -> None:
        """With clocks of replicas and a server far apart each path is fetched once."""
        ahead = int((time.time() + HOUR_S) * 1e6)
        prefix = self.setting("--cache-lock-redis-key-prefix")
        self.servers[1].say("SET", f"{prefix}#fence", str(ahead))
        paths = [self.cache.add(20_000) for _ in range(32)]
        origin = self.mounted()
        replicas = self.make_replicas(3, origin.url)
        for replica, clock in zip(replicas, (0.0, MINUTES_S, -MINUTES_S), strict=True):
            replica.clock_ahead_s = clock
        self.at_once(*(replica.start for replica in replicas))

        def install(replica: Any) -> list[bool]:
            return [self.nar(replica, path).body == path.file for path in paths]

        for found in self.at_once(*(lambda r=r: install(r) for r in replicas * 2)):
            self.assertEqual([True] * len(paths), found)
        repeated = {at: n for at, n in origin.get_counts().items() if n > 1 and "." in at}
        self.assertEqual({}, repeated)
        later = f"SELECT count(*) FROM nar_files WHERE fence > {ahead}"
        wait_until(
            lambda: self.backends.database.execute(later, self.database_name) == [(len(paths),)],
            "rows with later numbers",
        )
