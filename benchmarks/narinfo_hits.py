"""Narinfo hits: wrk with 25 keep-alive connections; nginx serves files with the same bytes."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, Sample, Series, Spread, alternate
from benchmarks.stand import Stand, get_on
from tests.e2e.daemon import Daemon

COUNT = 4000
CONNECTIONS = 25
LEAST = 0.15
SCRIPT = Path(__file__).with_name("narinfo.lua")


def prepare(stand: Stand, daemon: Daemon) -> tuple[Path, int]:
    """Make ncps and nginx serve the same narinfos; return the file of paths and the total size."""
    paths = [f"/{digest}.narinfo" for digest in stand.material.narinfos(COUNT)]
    ours = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    theirs = http.client.HTTPConnection("127.0.0.1", stand.narinfo_port, timeout=60)
    size = 0
    for path in paths:
        text = get_on(ours, path)
        (stand.narinfo_files / path[1:]).write_bytes(text)
        size += len(text)
        if get_on(ours, path, cache="HIT") != get_on(theirs, path):
            raise AssertionError(f"{path}: ncps and nginx differ")
    ours.close()
    theirs.close()
    listed = stand.directory / "narinfo-paths"
    listed.write_text("\n".join(paths) + "\n")
    return listed, size


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
    run = partial(wrk, listed=listed, seconds=stand.seconds, least_bytes=size / COUNT)
    contenders = {
        ANCHOR: partial(run, stand.nginx.url(), stand.nginx.pid),
        OURS: partial(run, stand.daemon.url, stand.daemon.pid),
    }
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
        return Figure(
            point=point,
            quantity=label,
            anchor=series.spread(ANCHOR, quantity),
            ours=series.spread(OURS, quantity),
            ratio=series.ratio(quantity),
            least=least,
            digits=digits,
        )

    return [
        figure("requests/s", "rate", ",.0f", least_ratio),
        figure("p50, ms", "p50_ms", ".2f"),
        figure("p99, ms", "p99_ms", ".2f"),
        figure("CPU, µs/request", "cpu_us", ".1f"),
    ]
