"""narinfo hits: wrk with 25 keep-alive connections, against files of the same bytes in nginx."""

from __future__ import annotations

import http.client
import json
import subprocess
from functools import partial
from pathlib import Path

from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, Sample, Series, Spread, alternate
from benchmarks.stand import Stand, get_on

COUNT = 4000
CONNECTIONS = 25
LEAST = 0.15
SCRIPT = Path(__file__).with_name("narinfo.lua")


def _prepare(stand: Stand) -> tuple[Path, int]:
    """Have ncps know all narinfos and nginx serve the same; return the list and all bytes."""
    paths = [f"/{digest}.narinfo" for digest in stand.material.narinfos(COUNT)]
    ours = http.client.HTTPConnection("127.0.0.1", stand.daemon.port, timeout=60)
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


def wrk(port: int, pid: int, listed: Path, seconds: int, least_bytes: float) -> Sample:
    """Ask for all listed paths, again and again.

    :param listed: file with a path per line.
    :param least_bytes: of an answer on average, else something is wrong.
    """
    before = cpu_seconds(pid)
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--latency"),
            *("--duration", f"{seconds}s", "--script", SCRIPT, f"http://127.0.0.1:{port}"),
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
    listed, size = _prepare(stand)
    run = partial(wrk, listed=listed, seconds=stand.seconds, least_bytes=size / COUNT)
    contenders = {
        ANCHOR: partial(run, stand.narinfo_port, stand.nginx.pid),
        OURS: partial(run, stand.daemon.port, stand.daemon.pid),
    }
    alternate(contenders, rounds=1, noise=stand.noise)  # warm
    forget_peak(stand.daemon.pid)
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    peak = rss_peak_bytes(stand.daemon.pid) / 2**20
    return [*_figures(series), _figure("RSS peak, MiB", ours=Spread([peak]))]


def _figures(series: Series) -> list[Figure]:
    def figure(label: str, quantity: str, digits: str, least: float | None = None) -> Figure:
        return Figure(
            point=f"narinfo hit, {CONNECTIONS} connections",
            quantity=label,
            anchor=series.spread(ANCHOR, quantity),
            ours=series.spread(OURS, quantity),
            ratio=series.ratio(quantity),
            least=least,
            digits=digits,
        )

    return [
        figure("requests/s", "rate", ",.0f", LEAST),
        figure("p50, ms", "p50_ms", ".2f"),
        figure("p99, ms", "p99_ms", ".2f"),
        figure("CPU, µs/request", "cpu_us", ".1f"),
    ]


def _figure(quantity: str, ours: Spread) -> Figure:
    return Figure(point=f"narinfo hit, {CONNECTIONS} connections", quantity=quantity, ours=ours)
