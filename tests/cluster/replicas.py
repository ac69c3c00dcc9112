"""Replicas that share a database, a bucket and their leases, and the servers behind them."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.cluster.balancer import Balancer
from tests.cluster.reader import Reader
from tests.e2e.daemon import HOSTNAME, Daemon, UpstreamCache
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.mysql import MySQL
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.radosgw import RadosGW
from tests.integration.servers.redis import Redis
from tests.system.caches import StorePath
from tests.system.stage import Stage
from tests.waiting import wait_until

LEASE_S = 3
"""Seconds that replicas wait for the lease of a dead one."""

READ_S = 240.0
"""Seconds for all readers of one test, on a busy machine."""


SERVERS: dict[str, Callable[[], DatabaseServer]] = {
    "PostgreSQL": PostgreSQL,
    "MariaDB": MariaDB,
    "MySQL": MySQL,
}
SHARED: dict[str, Callable[[], DatabaseServer]] = {
    "PostgreSQL": shared.postgresql,
    "MariaDB": shared.mariadb,
    "MySQL": shared.mysql,
}


@frozen
class Backends:
    """The servers that replicas share; each test gets a database and a bucket."""

    database: DatabaseServer
    redis: Redis
    s3: RadosGW

    @classmethod
    def new(cls, name: str) -> Backends:
        """Make servers that only this test uses, not started."""
        return cls(SERVERS[name](), Redis(), RadosGW())

    def start(self) -> None:
        """Start all servers."""
        for server in (self.database, self.redis, self.s3):
            server.start()

    def close(self) -> None:
        """End all servers and remove their files."""
        for server in (self.database, self.redis, self.s3):
            server.close()

    def options(self) -> tuple[str, ...]:
        """Return the flags of one cluster: a new database, a new bucket, leases, timeouts."""
        return (
            *("--cache-database-url", self.database.new_database()),
            *("--cache-storage-s3-endpoint", self.s3.endpoint),
            *("--cache-storage-s3-bucket", self.s3.new_bucket()),
            *("--cache-storage-s3-region", self.s3.region),
            *("--cache-storage-s3-access-key-id", self.s3.access_key),
            *("--cache-storage-s3-secret-access-key", self.s3.secret_key),
            "--cache-storage-s3-force-path-style",
            *("--cache-redis-addrs", f"127.0.0.1:{self.redis.port}"),
            *("--cache-lock-backend", "redis"),
            *("--cache-lock-redis-key-prefix", f"ncps:{secrets.token_hex(4)}:"),
            *("--cache-lock-download-ttl", f"{LEASE_S}s"),
            *("--cache-redis-timeout", "1s"),
            *("--cluster-secret", secrets.token_hex(16)),
            *("--cache-upstream-dialer-timeout", "1s"),
            *("--cache-upstream-response-header-timeout", "2s"),
            *("--cache-upstream-nar-timeout", "2s"),
            *("--server-drain-timeout", "5s"),
            "--prometheus-enabled",
        )


@cache
def started(name: str) -> Backends:
    """Return the servers of this process, with this database; tests restart them."""
    return Backends(SHARED[name](), shared.redis(), shared.radosgw())


def setting(options: Sequence[str], flag: str) -> str:
    """Return the value after a flag."""
    return options[options.index(flag) + 1]


class Replica(Daemon):
    """One of several daemons that are one cache; its own directory only has spools.

    :ivar clock_ahead_s: seconds by which its clock is ahead of that of the others.
    """

    clock_ahead_s = 0.0

    def __init__(
        self,
        directory: Path,
        upstreams: Sequence[UpstreamCache],
        *,
        shared: Sequence[str],
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, upstreams, options=options)
        self.is_forked = True
        self._shared = tuple(shared)

    def command(self) -> list[str]:
        """Return the command line."""
        program = ["ncps"]
        if self.clock_ahead_s:
            program = ["tests.machines.skewed", str(self.clock_ahead_s)]
        command = [
            *(sys.executable, "-m", *program, "serve"),
            *("--server-addr", f"127.0.0.1:{self.port}"),
            *("--cache-hostname", HOSTNAME),
            *("--cache-temp-path", str(self.directory / "tmp")),
            *("--cluster-advertise-url", self.url),
            *self._shared,
        ]
        for upstream in self.upstreams:
            command += ["--cache-upstream-url", upstream.url]
            command += ["--cache-upstream-public-key", upstream.public_key]
        return [*command, *self.options]


class ClusterStage(Stage):
    """A stage with replicas."""

    database_server = "PostgreSQL"

    def setUp(self) -> None:
        super().setUp()
        self.backends = backends = started(self.database_server)
        self.shared = backends.options()

    def setting(self, flag: str) -> str:
        """Return the value of this flag that the replicas share."""
        return setting(self.shared, flag)

    def share(self, flag: str, value: str) -> None:
        """Set another value of a shared flag for replicas that are made from now on."""
        at = self.shared.index(flag) + 1
        self.shared = (*self.shared[:at], value, *self.shared[at + 1 :])

    @property
    def database_name(self) -> str:
        """Return the name of the database that the replicas share."""
        return self.setting("--cache-database-url").rpartition("/")[2]

    @property
    def bucket(self) -> str:
        """Return the name of the bucket that the replicas share."""
        return self.setting("--cache-storage-s3-bucket")

    def make_replicas(self, count: int, *urls: str, options: Sequence[str] = ()) -> list[Replica]:
        """Return replicas over these upstreams that are not started."""
        caches = [UpstreamCache(url, self.cache.key.public) for url in urls]
        made = []
        for _ in range(count):
            self._made += 1
            replica = Replica(
                self.directory / f"ncps{self._made}", caches, shared=self.shared, options=options
            )
            self.addCleanup(self.check_log, replica)
            self.addCleanup(replica.kill)
            made.append(replica)
        return made

    def replicas(self, count: int, *urls: str, options: Sequence[str] = ()) -> list[Replica]:
        """Return started replicas."""
        made = self.make_replicas(count, *urls, options=options)
        self.at_once(*(replica.start for replica in made))
        return made

    def balancer(self, replicas: Sequence[Replica]) -> Balancer:
        """Return a started load balancer before these replicas."""
        balancer = Balancer(self.directory / "nginx", [replica.port for replica in replicas])
        self.addCleanup(balancer.close)
        balancer.start()
        return balancer

    # Reading

    def readers(
        self,
        replicas: list[Replica],
        path: StorePath,
        count: int,
        *,
        first: Replica | None = None,
        **options: Any,
    ) -> list[Reader]:
        """Start clients, spread over the replicas; each knows the other replicas, too.

        :param first: the replica that all clients ask first.
        """
        target = self.nar_target(first or replicas[0], path)
        ports = [replica.port for replica in replicas]
        made = []
        for number in range(count):
            turn = number % len(ports) if first is None else replicas.index(first)
            reader = Reader(ports[turn:] + ports[:turn], target, path.file, **options)
            reader.start()
            made.append(reader)
        return made

    def assert_all_read(self, readers: list[Reader]) -> None:
        """Wait for readers and check that each has the whole file."""
        for reader in readers:
            reader.join(READ_S)
            self.assertFalse(reader.is_alive(), "stuck")
        self.assertEqual([], [reader.trouble for reader in readers if reader.trouble])
        self.assertTrue(all(reader.is_done for reader in readers))

    def metric(self, daemon: Daemon, series: str) -> float:
        """Read one metric of a replica: the sum of all series with this prefix."""
        text = self.ask(daemon, "/metrics").body.decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(series))

    def assert_hit(self, replica: Replica, path: StorePath) -> None:
        """Check that a replica serves a NAR from the shared store after a while."""
        target = self.nar_target(replica, path)
        wait_until(
            lambda: self.ask(replica, target, method="HEAD").outcome == "hit",
            f"a hit for {target}",
            daemon=replica,
        )
        part = self.ask(replica, target, Range="bytes=1000-1999")
        self.assertEqual((206, path.file[1000:2000]), (part.status, part.body))
