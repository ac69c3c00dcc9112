"""A million paths in the catalog, and ten thousand idle connections."""

from __future__ import annotations

import http.client
import random
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.catalogs import SIZE, digest_of, opened, statements
from benchmarks.processes import cpu_seconds, forget_peak, rss_bytes, rss_peak_bytes
from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.shared import SharedDaemon
from benchmarks.stand import Stand
from tests.e2e.daemon import fetch
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.postgresql import PostgreSQL
from tests.machines.turns import longest_turn_s

PATHS = 1_000_000
EVICTED = 100_000
HITS = 2000
IDLE = 10_000
MOST_IDLE_MIB = 150.0
MOST_TURN_MS = 20.0
START_S = 300.0
EVICTION_S = 3600.0
FREED = re.compile(r"removed (\d+) NARs")


class _Stage:
    """A daemon with a full catalog, which records its longest turn."""

    def __init__(self, stand: Stand, name: str, engine: str, url: str) -> None:
        self.directory = stand.fresh("scale")
        self.name = name
        self._engine = engine
        self._url = url or f"sqlite:{self.directory}/catalog.sqlite"
        self._turns = self.directory / "turn"
        self._key = stand.daemon.upstreams[0].public_key

    def daemon(self, *flags: str) -> SharedDaemon:
        """Make a daemon, without starting it."""
        made = SharedDaemon(
            self.directory / f"run-{time.monotonic_ns()}",
            [],
            *("--cache-database-url", self._url),
            *("--cache-storage-local", str(self.directory / "storage")),
            *("--cache-upstream-url", "http://127.0.0.1:9"),
            *("--cache-upstream-public-key", self._key),
            *("--cache-sign-narinfo=false", "--cache-verify-rate", "0"),
            *("--cache-narinfo-memory-size", "0"),
            *flags,
        )
        made.program = ("-m", "tests.machines.turns", str(self._turns))
        return made

    def fill(self) -> None:
        """Make the schema, and insert a million paths."""
        (self.directory / "storage").mkdir(parents=True)
        daemon = self.daemon()
        daemon.start()
        daemon.stop()
        with opened(self._engine, self._url) as execute:
            for statement in statements(self._engine, PATHS, int(time.time() * 1000)):
                execute(statement)
            execute("ANALYZE" if self._engine != "mysql" else "ANALYZE TABLE nar_files, narinfos")

    def measure(self, noise: random.Random) -> list[Figure]:
        """Measure the start, narinfo hits, and an eviction."""
        daemon = self.daemon()
        began = time.monotonic()
        daemon.start(START_S)
        try:
            wall_s, cpu_s = time.monotonic() - began, cpu_seconds(daemon.pid)
            figures = [
                self._figure("start to ready, CPU ms", cpu_s * 1000),
                self._figure("start to ready, ms", wall_s * 1000),
                *self._hits(daemon, noise),
            ]
        finally:
            daemon.stop()
        return figures + self._eviction()

    def _hits(self, daemon: SharedDaemon, noise: random.Random) -> list[Figure]:
        line = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        before, times = cpu_seconds(daemon.pid), []
        for _ in range(HITS):
            began = time.perf_counter()
            line.request("GET", f"/{digest_of(noise.randrange(1, PATHS))}.narinfo")
            response = line.getresponse()
            response.read()
            if response.status != 200:
                raise AssertionError(f"{self.name}: {response.status}")
            times.append(time.perf_counter() - began)
        line.close()
        cpu_us = (cpu_seconds(daemon.pid) - before) / HITS * 1e6
        idle = rss_bytes(daemon.pid) / 2**20
        return [
            self._figure("narinfo hit without memory, p50 ms", median(times) * 1000, "", ".2f"),
            self._figure("narinfo hit without memory, CPU µs", cpu_us),
            self._figure("RSS, MiB", idle),
        ]

    def _eviction(self) -> list[Figure]:
        """Evict a tenth of the NARs, which have no files: this measures the cost of the rows."""
        high = (PATHS - EVICTED) * SIZE
        daemon = self.daemon(
            "--cache-max-size", f"{high // 1024}K", "--cache-lru-schedule", "* * * * *"
        )
        daemon.start(START_S)
        pid = daemon.pid
        try:
            longest_turn_s(self._turns)
            forget_peak(pid)
            idle, before, began = rss_bytes(pid), cpu_seconds(pid), time.monotonic()
            while not (found := FREED.search(daemon.log)):
                if time.monotonic() > began + EVICTION_S:
                    raise AssertionError(f"{self.name}: nothing was evicted:\n{daemon.log[-2000:]}")
                time.sleep(0.5)
            spent, turn_ms = cpu_seconds(pid) - before, longest_turn_s(self._turns) * 1000
            peak = (rss_peak_bytes(pid) - idle) / 2**20
            point = f"eviction of {int(found[1]):,} of {PATHS:,} NARs, {self.name}"
            return [
                self._figure("CPU s", spent, point, ".1f"),
                Figure(
                    point=point,
                    quantity="longest turn, CPU ms",
                    ours=Spread([turn_ms]),
                    most=MOST_TURN_MS,
                    digits=".1f",
                ),
                self._figure("MiB above idle", peak, point),
            ]
        finally:
            daemon.kill()

    def _figure(self, quantity: str, value: float, point: str = "", digits: str = ",.0f") -> Figure:
        point = point or f"{PATHS:,} paths, {self.name}"
        return Figure(point=point, quantity=quantity, ours=Spread([value]), digits=digits)


@contextmanager
def _connections(port: int, count: int) -> Iterator[None]:
    """Keep connections open; each has made one request."""
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            line.sendall(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n")
            if not line.recv(4096).startswith(b"HTTP/1.1 200"):
                raise AssertionError("no answer")
        yield


def idle_connections(stand: Stand) -> list[Figure]:
    """Measure the memory of idle connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(IDLE, hard - 500)
    daemon = SharedDaemon(
        stand.fresh("idle"),
        stand.daemon.upstreams,
        *("--cache-database-url", f"sqlite:{stand.directory}/idle.sqlite"),
        *("--cache-storage-local", str(stand.directory / "idle-storage")),
        *("--server-max-connections", str(count + 100), "--server-idle-timeout", "600s"),
        *("--server-max-connections-per-address", "0", "--server-max-requests", "500"),
    )
    (stand.directory / "idle-storage").mkdir()
    daemon.start()
    try:
        fetch(f"{daemon.url}/nix-cache-info")
        before = rss_bytes(daemon.pid)
        with _connections(daemon.port, count):
            more = (rss_bytes(daemon.pid) - before) / 2**20
        return [
            Figure(
                point=f"{count:,} idle connections",
                quantity="RSS over idle, MiB",
                ours=Spread([more]),
                most=MOST_IDLE_MIB,
            )
        ]
    finally:
        daemon.kill()


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    figures = idle_connections(stand)
    with ExitStack() as servers:
        for name, engine, start in (
            ("SQLite", "sqlite", None),
            ("PostgreSQL", "postgresql", PostgreSQL),
            ("MariaDB", "mysql", MariaDB),
        ):
            url = servers.enter_context(start()).new_database() if start is not None else ""
            stage = _Stage(stand, name, engine, url)
            stage.fill()
            figures += stage.measure(stand.noise)
    return figures
