"""Narinfo hits: wrk with 25 keep-alive connections; nginx serves files with the same bytes."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes, wait_until_idle
from benchmarks.report import Figure, compared
from benchmarks.rounds import ANCHOR, GO, OURS, Sample, Series, Spread, alternate
from benchmarks.stand import Stand, get_on
from tests.e2e.daemon import Daemon

COUNT = 4000
GO_COUNT = 1000
NAR_SIZE = 1000
CONNECTIONS = 25
LEAST = 0.15
TRIES = 100
SCRIPT = Path(__file__).with_name("narinfo.lua")


def prepare(stand: Stand, daemon: Daemon) -> tuple[Path, float]:
    """Make ncps and nginx serve the same narinfos; return the file of paths and the mean size.

    The Go program answers 404 for a narinfo whose NAR is missing. So if a run measures it, the
    narinfos have NARs.
    """
    if stand.go is None:
        digests = stand.material.narinfos(COUNT)
    else:
        digests = [stand.material.nar(NAR_SIZE).digest for _ in range(GO_COUNT)]
    paths = [f"/{digest}.narinfo" for digest in digests]
    ours = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    theirs = http.client.HTTPConnection("127.0.0.1", stand.narinfo_port, timeout=60)
    size = 0
    for path in paths:
        text = get_on(ours, path)
        (stand.narinfo_files / path[1:]).write_bytes(text)
        size += len(text)
        if known(ours, path) != get_on(theirs, path):
            raise AssertionError(f"{path}: ncps and nginx differ")
    ours.close()
    theirs.close()
    wait_until_idle(daemon.pid)  # it may still fetch small NARs ahead
    listed = stand.directory / "narinfo-paths"
    listed.write_text("\n".join(paths) + "\n")
    return listed, size / len(paths)


def known(connection: http.client.HTTPConnection, path: str) -> bytes:
    """Return the answer of a hit; a busy daemon records a narinfo after its first answer."""
    for _ in range(TRIES):
        with suppress(AssertionError):
            return get_on(connection, path, cache="HIT")
        time.sleep(0.01)
    return get_on(connection, path, cache="HIT")


def mean_size(port: int, listed: Path) -> float:
    """Make a cache fetch all listed narinfos; return the mean size of its answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return mean(len(get_on(connection, path)) for path in listed.read_text().split())
    finally:
        connection.close()


def wrk(
    url: str,
    pid: int,
    listed: Path,
    seconds: int,
    least_bytes: float,
    headers: Sequence[str] = (),
) -> Sample:
    """Ask for all listed paths repeatedly, with `wrk`.

    :param url: of the server, without a slash at the end.
    :param listed: file with one path on each line.
    :param least_bytes: average size of a right answer; smaller ones count as an error.
    :param headers: further header lines of each request.
    """
    before = cpu_seconds(pid)
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--latency"),
            *("--duration", f"{seconds}s", "--script", SCRIPT, url),
            *(word for line in headers for word in ("--header", line)),
            *("--", listed),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    cpu = cpu_seconds(pid) - before
    line = next(one for one in done.stdout.splitlines() if one.startswith("outcome "))
    found: dict[str, float] = json.loads(line.removeprefix("outcome "))
    found["rate"] = found["requests"] / found["seconds"]
    found["cpu_us"] = cpu / found["requests"] * 1e6
    found["errors"] += found["bytes"] < least_bytes * found["requests"] * 0.99
    return found


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    listed, size = prepare(stand, stand.daemon)
    run = partial(wrk, listed=listed, seconds=stand.seconds, least_bytes=size)
    contenders = {
        ANCHOR: partial(run, stand.nginx.url(), stand.nginx.pid),
        OURS: partial(run, stand.daemon.url, stand.daemon.pid),
    }
    if (go := stand.go_daemon) is not None:
        mean_bytes = mean_size(go.port, listed)
        wait_until_idle(go.pid)
        contenders[GO] = partial(
            wrk, go.url, go.pid, listed, seconds=stand.seconds, least_bytes=mean_bytes
        )
    alternate(contenders, rounds=1, noise=stand.noise)  # warm
    forget_peak(stand.daemon.pid)
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    peak = rss_peak_bytes(stand.daemon.pid) / 2**20
    point = f"narinfo hit, {CONNECTIONS} connections"
    memory = Figure(point=point, quantity="RSS peak, MiB", ours=Spread([peak]))
    return [*figures_of(series, point, LEAST), memory]


def figures_of(series: Series, point: str, least_ratio: float | None = None) -> list[Figure]:
    """Return the lines of the table for the results of `wrk`."""

    def figure(label: str, quantity: str, digits: str, least: float | None = None) -> Figure:
        return compared(series, quantity, point=point, label=label, least=least, digits=digits)

    return [
        figure("requests/s", "rate", ",.0f", least_ratio),
        figure("p50, ms", "p50_ms", ".2f"),
        figure("p99, ms", "p99_ms", ".2f"),
        figure("CPU, µs/request", "cpu_us", ".1f"),
    ]
