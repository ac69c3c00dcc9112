"""Narinfo hits for each database, from memory and with the memory off: `--only databases`."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks.material import KEY
from benchmarks.narinfo_hits import CONNECTIONS, wrk
from benchmarks.report import Figure
from benchmarks.rounds import Series, alternate
from benchmarks.shared import SharedDaemon
from benchmarks.stand import Stand, get_on
from tests.e2e.daemon import UpstreamCache
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.postgresql import PostgreSQL

COUNT = 1000
SQLITE = "sqlite"


@contextmanager
def _daemon(stand: Stand, url: str, memory: str) -> Iterator[SharedDaemon]:
    directory = stand.fresh("database")
    daemon = SharedDaemon(
        directory,
        [UpstreamCache(stand.origin.url(), KEY.public)],
        *("--cache-database-url", url or f"sqlite:{directory}/catalog.sqlite"),
        *("--cache-storage-local", str(directory / "storage")),
        *("--cache-narinfo-memory-size", memory),
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    paths = [f"/{digest}.narinfo" for digest in stand.material.narinfos(COUNT)]
    listed = stand.directory / "database-paths"
    listed.write_text("\n".join(paths) + "\n")
    figures = []
    with ExitStack() as servers:
        urls = {
            SQLITE: "",
            "PostgreSQL": servers.enter_context(PostgreSQL()).new_database(),
            "MariaDB": servers.enter_context(MariaDB()).new_database(),
        }
        for what, memory in (("memory", "64M"), ("database", "0")):
            with ExitStack() as running:
                contenders = {}
                for name, url in urls.items():
                    daemon = running.enter_context(_daemon(stand, url, memory))
                    line = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
                    size = sum(len(get_on(line, path)) for path in paths)
                    line.close()
                    contenders[name] = partial(
                        wrk, daemon.url, daemon.pid, listed, stand.seconds, size / COUNT
                    )
                alternate(contenders, rounds=1, noise=stand.noise)  # warm
                series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
            figures += _figures(series, f"narinfo from {what}", list(urls))
    return figures


def _figures(series: Series, point: str, names: list[str]) -> list[Figure]:
    figures = []
    for name in names:
        for quantity, label, digits in (
            ("rate", "requests/s", ",.0f"),
            ("p50_ms", "p50, ms", ".2f"),
        ):
            figures.append(
                Figure(
                    point=f"{point}, {name}, {CONNECTIONS} connections",
                    quantity=label,
                    ours=series.spread(name, quantity),
                    digits=digits,
                )
            )
    return figures
