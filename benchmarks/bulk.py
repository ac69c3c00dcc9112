"""Requests for many paths: a query, a closure, a pin and a removal with 100,000 paths."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.processes import cpu_seconds, forget_peak, rss_bytes, rss_peak_bytes
from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.shared import SharedDaemon
from benchmarks.stand import Stand
from tests.integration.servers.postgresql import PostgreSQL
from tests.machines.turns import longest_turn_s
from tests.system.caches import to_base32
from tests.system.program import run_ncps

PATHS = 100_000
FAN = 10
"""References of a path to later paths; it has three more, to earlier paths."""
QUESTION = 10_000
MOST_TURN_MS = 20.0
DEADLINE_S = 600.0
_NAR_COLUMNS = (
    "id, name, extension, compression, encoding, file_size, file_hash, nar_size, nar_hash,"
    " upstream, origin_url, stored_size, stored_at, verified_at"
)
_NARINFO_COLUMNS = (
    "id, hash, nar_file_id, store_path_name, narinfo, upstream, upstream_url, verified,"
    " fetched_at, verified_by"
)


class Graph:
    """Paths with references; the closure of the first one has all others, in a few levels."""

    def __init__(self, noise: random.Random, count: int) -> None:
        self.digests = [to_base32(noise.randbytes(20)) for _ in range(count)]
        self._hashes = [to_base32(noise.randbytes(32)) for _ in range(count)]
        self._noise = noise

    def rows(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Yield the rows of each NAR and of its narinfo."""
        count = len(self.digests)
        for number, (digest, text) in enumerate(zip(self.digests, self._hashes, strict=True), 1):
            after = range((number - 1) * FAN + 1, min((number - 1) * FAN + 1 + FAN, count))
            before = [self._noise.randrange(number) for _ in range(3)]
            references = " ".join(f"{self.digests[i]}-bulk-{i}" for i in (*after, *before))
            name = f"bulk-{number - 1}"
            narinfo = (
                f"StorePath: /nix/store/{digest}-{name}\nURL: nar/{text}.nar\nCompression: none\n"
                f"FileHash: sha256:{text}\nFileSize: 1000\nNarHash: sha256:{text}\nNarSize: 1000\n"
                f"References: {references}\n"
            )
            full = f"sha256:{text}"
            yield (
                (number, text, "", "none", "none", 1000, full, 1000, full, "", "", 1000, 1, 1),
                (number, digest, number, name, narinfo, "", "", 1, 1, "upload"),
            )


def fill(
    execute: Callable[[str, Sequence[Sequence[Any]]], object], graph: Graph, mark: str
) -> None:
    """Insert the rows of a graph.

    :param execute: `executemany` of a cursor.
    :param mark: the placeholder of a value in a statement.
    """
    rows = list(graph.rows())
    for table, columns, part in (
        ("nar_files", _NAR_COLUMNS, [nar for nar, _ in rows]),
        ("narinfos", _NARINFO_COLUMNS, [narinfo for _, narinfo in rows]),
    ):
        marks = ", ".join([mark] * len(part[0]))
        execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", part)


class Stage:
    """A daemon with a full catalog, which records its longest turn."""

    def __init__(self, stand: Stand, name: str, url: str, graph: Graph, key: str) -> None:
        self.directory = stand.fresh("bulk")
        self.name = name
        self.graph = graph
        self._file = self.directory / "turn"
        self._url = url
        self.daemon = SharedDaemon(
            self.directory,
            [],
            *("--cache-database-url", url or f"sqlite:{self.directory}/catalog.sqlite"),
            *("--cache-storage-local", str(self.directory / "storage")),
            *("--cache-upstream-url", "http://127.0.0.1:9", "--cache-upstream-public-key", key),
            *("--cache-sign-narinfo=false", "--cache-verify-rate", "0"),
        )
        self.daemon.program = ("-m", "tests.machines.turns", str(self._file))
        self.token = ""

    def prepare(self, server: PostgreSQL | None) -> None:
        """Make the schema and a token, fill the tables, and start."""
        self.daemon.start()
        made = run_ncps(self.daemon, "token", "create", "--name", "bulk", "--scope", "admin")
        self.token = made.stdout.strip()
        self.daemon.stop()
        if server is None:
            with sqlite3.connect(self.directory / "catalog.sqlite") as database:
                fill(database.executemany, self.graph, "?")
            database.close()
        else:
            import psycopg

            with psycopg.connect(self._url) as connection:
                fill(connection.cursor().executemany, self.graph, "%s")
        self.daemon.start()

    def take(self, what: str, method: str, path: str, body: object = None) -> list[Figure]:
        """Make a request and read its answer; return its costs."""
        pid = self.daemon.pid
        longest_turn_s(self._file)
        forget_peak(pid)
        idle = rss_bytes(pid)
        before, began = cpu_seconds(pid), time.monotonic()
        status = self.ask(method, path, body)
        if status not in {200, 204}:
            raise AssertionError(f"{what}: {status}")
        spent, took = cpu_seconds(pid) - before, time.monotonic() - began
        turn_ms = longest_turn_s(self._file) * 1000
        point = f"{what}, {self.name}"
        return [
            Figure(point=point, quantity="CPU s", ours=Spread([spent]), digits=".2f"),
            Figure(point=point, quantity="s", ours=Spread([took]), digits=".1f"),
            Figure(
                point=point,
                quantity="longest turn, ms",
                ours=Spread([turn_ms]),
                most=MOST_TURN_MS,
                digits=".1f",
            ),
            Figure(
                point=point,
                quantity="MiB above idle",
                ours=Spread([max(0, rss_peak_bytes(pid) - idle) / 2**20]),
                digits=".0f",
            ),
        ]

    def ask(self, method: str, path: str, body: object = None) -> int:
        """Make a request, read its answer to the end, and return its status."""
        line = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=DEADLINE_S)
        try:
            text = None if body is None else json.dumps(body)
            line.request(method, path, text, {"Authorization": f"Bearer {self.token}"})
            response = line.getresponse()
            while response.read(1 << 20):
                pass
            return response.status
        finally:
            line.close()

    def measure(self) -> list[Figure]:
        """Make each request once."""
        root, digests = self.graph.digests[0], self.graph.digests
        question = {"hashes": digests[:QUESTION]}
        removal = {"hashes": [root], "closure": True}
        return [
            *self.take("query of 10,000 paths", "POST", "/api/v1/query", question),
            *self.take("closure of 100,000 paths", "GET", f"/api/v1/closure/{root}"),
            *self.take("pin of 100,000 paths", "POST", f"/pin/{root}.narinfo"),
            *self.take("end of that pin", "DELETE", f"/pin/{root}.narinfo"),
            *self.take("dry removal", "POST", "/api/v1/remove", removal | {"dry_run": True}),
            *self.take("removal of 100,000 paths", "POST", "/api/v1/remove", removal),
        ]


def measure(stand: Stand) -> list[Figure]:
    """Measure with SQLite and with PostgreSQL."""
    figures: list[Figure] = []
    with ExitStack() as servers:
        server = servers.enter_context(PostgreSQL())
        for name, url in (("SQLite", ""), ("PostgreSQL", server.new_database())):
            graph = Graph(stand.noise, PATHS)
            stage = Stage(stand, name, url, graph, stand.daemon.upstreams[0].public_key)
            servers.callback(stage.daemon.kill)
            stage.prepare(server if url else None)
            figures += stage.measure()
            stage.daemon.kill()
    return figures
