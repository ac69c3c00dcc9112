"""Cold paths, one after the other: a narinfo and its small NAR, through ncps and directly.

Each path is new to ncps. The client has one connection, as Nix has for one file after the other.
CPU time counts until all NARs are stored, so it includes the whole cost of a path.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from benchmarks.material import MadeNar
from benchmarks.processes import cpu_seconds, wait_until_idle
from benchmarks.report import Figure, compared
from benchmarks.rounds import GO, OURS, Sample, Series, alternate
from benchmarks.sink import Fetch
from benchmarks.stand import Stand

SIZE = 48 << 10
COUNT = 150
WARM_UP = 10
DIRECT = "direct"
POINT = f"cold path, NAR of {SIZE >> 10} KiB, one after the other"


def _timed(connection: Fetch, path: str) -> tuple[float, float]:
    """Fetch a path; return the seconds to the first and to the last byte of the answer."""
    began = time.perf_counter()
    connection.ask(path)
    connection.received = 0
    is_whole, first = connection.take(), time.perf_counter()
    while not is_whole:
        is_whole = connection.take()
    return first - began, time.perf_counter() - began


def _measure(stand: Stand, port: int, pid: int, settle: Callable[[list[MadeNar]], None]) -> Sample:
    """Fetch new paths.

    :param settle: waits until the server has stored them.
    """
    made = [stand.material.nar(SIZE) for _ in range(COUNT)]
    connection = Fetch(port, "/nix-cache-info")
    for one in made[:WARM_UP]:
        _take(connection, one)
    settle(made[:WARM_UP])
    before = cpu_seconds(pid)
    times = [_take(connection, one) for one in made[WARM_UP:]]
    settle(made[WARM_UP:])
    cpu = (cpu_seconds(pid) - before) / len(times)
    narinfo, first, whole = (median(column) * 1000 for column in zip(*times, strict=True))
    connection.socket.close()
    found = {"narinfo": narinfo, "first": first, "whole": whole, "cpu": cpu * 1000, "errors": 0}
    for one in made:
        stand.material.remove(one)
    return found


def _take(connection: Fetch, made: MadeNar) -> tuple[float, float, float]:
    """Fetch a store path; return seconds for the narinfo, to the NAR's first byte, and for both.

    The NAR is not compressed, so it has the same URL at the origin and in ncps.
    """
    _, narinfo = _timed(connection, f"/{made.digest}.narinfo")
    first, whole = _timed(connection, made.path)
    return narinfo, first, narinfo + whole


def _wait_until_stored(stand: Stand, made: list[MadeNar]) -> None:
    """Wait until all NARs are stored; the checks cost the daemon nothing."""
    for one in made[::-1]:
        stand.wait_until_stored(one)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    origin, daemon, go = stand.origin, stand.daemon, stand.go_daemon
    stored = partial(_wait_until_stored, stand)
    contenders = {
        DIRECT: partial(_measure, stand, stand.origin_port, origin.pid, lambda made: None),
        OURS: partial(_measure, stand, daemon.port, daemon.pid, stored),
    }
    if go is not None:
        contenders[GO] = partial(
            _measure, stand, go.port, go.pid, lambda made: wait_until_idle(go.pid)
        )
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
    return [
        _figure(series, "narinfo, ms (nginx: direct)", "narinfo"),
        _figure(series, "first byte of the NAR, ms", "first"),
        _figure(series, "whole, ms", "whole"),
        _figure(series, "CPU, ms/path", "cpu"),
    ]


def _figure(series: Series, label: str, quantity: str) -> Figure:
    return compared(
        series, quantity, point=POINT, label=label, anchor=DIRECT, with_ratio=False, digits=".2f"
    )
