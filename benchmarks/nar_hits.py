"""NAR hits from the page cache: small NARs with `wrk`, a large NAR on 1 and 25 connections."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from benchmarks.go_program import nar_path
from benchmarks.material import MadeNar
from benchmarks.narinfo_hits import CONNECTIONS, figures_of, wrk
from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes, wait_until_idle
from benchmarks.report import Figure, compared
from benchmarks.rounds import ANCHOR, GO, OURS, Sample, Spread, alternate
from benchmarks.stand import Stand, get, sink

SIZE = 256 << 20
SMALL = {10_000: None, 100_000: 0.5, 1_000_000: None}  # bytes: least ratio
COUNT = 40
BOUNDS = {1: 0.6, 25: None}  # connections: least ratio


def pull(
    port: int, pid: int, path: str, connections: int, seconds: int, authority: str = ""
) -> Sample:
    """Fetch one NAR repeatedly.

    :param authority: the file of the authority, for a port that speaks TLS.
    """
    before = cpu_seconds(pid)
    found = sink("pull", port, path, connections, seconds, *filter(None, (authority,)))
    cpu = cpu_seconds(pid) - before
    return {
        "rate": found["bytes"] / found["seconds"] / 2**20,
        "cpu": cpu / (found["bytes"] / 2**30),
        "errors": found["errors"],
    }


def _shown_by_go(stand: Stand, made: Sequence[MadeNar]) -> list[str]:
    """Make the Go program store NARs; return the paths that its narinfos name."""
    go = stand.go_daemon
    if go is None:
        return []
    paths = [nar_path(get(go.port, f"/{nar.digest}.narinfo")) for nar in made]
    for path in paths:
        get(go.port, path)
    wait_until_idle(go.pid)
    for path, nar in zip(paths, made, strict=True):
        if hashlib.sha256(get(go.port, path)).digest() != nar.sha256:
            raise AssertionError("wrong bytes")
    return paths


def _small(stand: Stand, size: int, least: float | None) -> list[Figure]:
    """Measure `COUNT` NARs of one size, in turn."""
    made = [stand.material.nar(size) for _ in range(COUNT)]
    for nar in made:
        get(stand.daemon.port, f"/{nar.digest}.narinfo")
        get(stand.daemon.port, nar.path)
        stand.wait_until_stored(nar)
        for port in (stand.daemon.port, stand.nar_port):
            if hashlib.sha256(get(port, nar.path)).digest() != nar.sha256:
                raise AssertionError("wrong bytes")
    listed = stand.fresh("nar-paths")
    listed.write_text("".join(f"{nar.path}\n" for nar in made))
    run = partial(wrk, seconds=stand.seconds, least_bytes=size)
    contenders = {
        ANCHOR: partial(run, stand.nginx.url(1), stand.nginx.pid, listed),
        OURS: partial(run, stand.daemon.url, stand.daemon.pid, listed),
    }
    if (go := stand.go_daemon) is not None:
        shown = stand.fresh("go-paths")
        shown.write_text("".join(f"{path}\n" for path in _shown_by_go(stand, made)))
        contenders[GO] = partial(run, go.url, go.pid, shown)
    alternate(contenders, rounds=1, noise=stand.noise)  # warm
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    point = f"NAR hit of {size // 1000} kB, {CONNECTIONS} connections"
    return figures_of(series, point, least)


def measure_small(stand: Stand) -> list[Figure]:
    """Measure NARs of the sizes of which a closure has many."""
    return [figure for size, least in SMALL.items() for figure in _small(stand, size, least)]


def measure(stand: Stand) -> list[Figure]:
    """Measure a large NAR."""
    figures: list[Figure] = []
    stand.pretouch()
    made = stand.material.nar(SIZE)
    get(stand.daemon.port, f"/{made.digest}.narinfo")
    get(stand.daemon.port, made.path)
    stand.wait_until_stored(made)
    for port in (stand.daemon.port, stand.nar_port):
        if hashlib.sha256(get(port, made.path)).digest() != made.sha256:
            raise AssertionError("wrong bytes")
    shown = _shown_by_go(stand, [made])
    for connections, least in BOUNDS.items():
        run = partial(pull, connections=connections, seconds=min(stand.seconds, 2))
        contenders = {
            ANCHOR: partial(run, stand.nar_port, stand.nginx.pid, made.path),
            OURS: partial(run, stand.daemon.port, stand.daemon.pid, made.path),
        }
        if (go := stand.go_daemon) is not None:
            contenders[GO] = partial(run, go.port, go.pid, shown[0])
        forget_peak(stand.daemon.pid)
        series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
        peak = rss_peak_bytes(stand.daemon.pid) / 2**20
        point = f"NAR hit, {connections} connection{'s' * (connections > 1)}"
        for quantity, label, digits in (
            ("rate", "MiB/s", ",.0f"),
            ("cpu", "CPU, s/GiB", ".3f"),
        ):
            figures.append(
                compared(
                    series,
                    quantity,
                    point=point,
                    label=label,
                    least=least if quantity == "rate" else None,
                    digits=digits,
                )
            )
        figures.append(Figure(point=point, quantity="RSS peak, MiB", ours=Spread([peak])))
    return figures
