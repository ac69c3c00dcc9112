"""One worker and two: cold closures, small hits, and the spread of connections over workers.

The rates are measured twice: with all cores for workers and clients together, and with `PART` of a
core for each worker, so that clients and origin never wait for a core.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from benchmarks.core_parts import limited
from benchmarks.machine import PROJECT
from benchmarks.narinfo_hits import CONNECTIONS, prepare, wrk
from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure
from benchmarks.rounds import Sample, Series, Spread, alternate
from benchmarks.stand import Stand
from tests.e2e.daemon import Daemon
from tests.system.crew import children

CLOSURE = 150
CLOSURES = 4
"""Closures of one measurement."""
SIZE = 48 << 10
LEAST = 1.7
PART = 0.3
"""The part of a core of each worker, so that two of them leave 1.4 of 2 cores idle."""
TRIES = 40
"""Number of measurements of the spread."""
WARM_S = 8
ONE, TWO = "one worker", "two workers"
DEADLINE_S = 60.0


def worker_pids(daemon: Daemon) -> list[int]:
    """Return the process ids of the processes that serve."""
    return children(daemon.pid) or [daemon.pid]


def connections_of(pid: int, port: int) -> int:
    """Return the number of a process's connections with clients at a port."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(entry.readlink()) in inodes
        except OSError:  # closed meanwhile
            continue
    return found


def _ask(line: socket.socket) -> None:
    line.sendall(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n")
    if not line.recv(4096).startswith(b"HTTP/1.1 200"):
        raise AssertionError("no answer")


def spread_once(daemon: Daemon, *, is_burst: bool) -> int:
    """Open connections; return the number at the worker with the most.

    :param is_burst: whether to open all together, and not each after the answer on another one.
    """
    lines = []
    try:
        for _ in range(CONNECTIONS):
            lines.append(socket.create_connection(("127.0.0.1", daemon.port), 30))
            if not is_burst:
                _ask(lines[-1])
        for line in lines:
            _ask(line)
        return max(connections_of(pid, daemon.port) for pid in worker_pids(daemon))
    finally:
        for line in lines:
            line.close()
        _wait_until_idle(daemon)


def _wait_until_idle(daemon: Daemon) -> None:
    end = time.monotonic() + DEADLINE_S
    while any(connections_of(pid, daemon.port) for pid in worker_pids(daemon)):
        if time.monotonic() > end:
            raise AssertionError("connections stay open")
        time.sleep(0.005)


def _closures(stand: Stand, daemon: Daemon) -> Sample:
    """Fetch closures that are new to the daemon; CPU time counts until all NARs are stored."""
    made = [stand.material.nar(SIZE) for _ in range(CLOSURE * CLOSURES)]
    listed = "".join(f"/{one.digest}.narinfo {one.path}\n" for one in made)
    before, known = cpu_seconds(daemon.pid), len(daemon.stored_nars())
    client = [sys.executable, "-m", "benchmarks.cold_client", str(daemon.port), str(CONNECTIONS)]
    done = subprocess.run(
        client, cwd=PROJECT, input=listed, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    end = time.monotonic() + DEADLINE_S
    while len(daemon.stored_nars()) < known + len(made):
        if time.monotonic() > end:
            raise AssertionError("not all NARs were stored")
        time.sleep(0.05)
    found["rate"] = CLOSURES / found["seconds"] * 60
    found["cpu_ms"] = (cpu_seconds(daemon.pid) - before) / len(made) * 1000
    found["errors"] = len(made) - found["paths"]
    for one in made:
        stand.material.remove(one)
    return found


def _figures(series: Series, point: str, rate: str, cpu: tuple[str, str]) -> list[Figure]:
    """Return figures of two workers; one worker is the anchor."""

    def figure(label: str, quantity: str, digits: str, least: float | None = None) -> Figure:
        return Figure(
            point=f"{point}, two workers (beside: one)",
            quantity=label,
            anchor=series.spread(ONE, quantity),
            ours=series.spread(TWO, quantity),
            ratio=series.ratio(quantity, TWO, ONE),
            least=least,
            digits=digits,
        )

    return [
        figure(rate, "rate", ",.0f", LEAST),
        figure("p50, ms", "p50_ms", ".2f"),
        figure("p99, ms", "p99_ms", ".2f"),
        figure(cpu[0], cpu[1], ".1f"),
    ]


def _spreads(daemon: Daemon) -> list[Figure]:
    return [
        Figure(
            point=f"{CONNECTIONS} connections over two workers, {how}",
            quantity="of them at the worker that has most",
            ours=Spread([spread_once(daemon, is_burst=is_burst) for _ in range(TRIES)]),
            most=(CONNECTIONS + 1) // 2 + 1,
        )
        for how, is_burst in (("together", True), ("one after the other", False))
    ]


def _daemons(stand: Stand) -> Mapping[str, Daemon]:
    found = {}
    for name, count in ((ONE, 1), (TWO, 2)):
        options = ["--workers", str(count)]
        found[name] = Daemon(stand.fresh("workers"), stand.daemon.upstreams, options=options)
        found[name].start()
    return found


def _remember(daemon: Daemon, listed: Path) -> None:
    """Make each worker answer each narinfo, so that it has all of them in memory.

    In the first pass, workers store the narinfos and send each other notices to forget them.
    """
    count = 2 * len(worker_pids(daemon))
    lines = [http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60) for _ in range(count)]
    try:
        for path in listed.read_text().split() * 2:
            for line in lines:
                line.request("GET", path)
                line.getresponse().read()
    finally:
        for line in lines:
            line.close()


def _limited(daemons: Mapping[str, Daemon]) -> AbstractContextManager[None]:
    """Give each worker of each daemon its part of a core."""
    return limited([pid for one in daemons.values() for pid in worker_pids(one)], PART)


def _warm_hits(run: Callable[..., Sample], daemon: Daemon) -> Sample:
    """Measure hits after a pass that is not measured: workers drop their memory at intervals."""
    run(daemon.url, daemon.pid, seconds=WARM_S)
    return run(daemon.url, daemon.pid)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    daemons = _daemons(stand)
    try:
        figures = _spreads(daemons[TWO])
        listed, size = prepare(stand, daemons[ONE])
        for daemon in daemons.values():
            _remember(daemon, listed)
        run = partial(wrk, listed=listed, seconds=stand.seconds, least_bytes=size)
        hits = {name: partial(_warm_hits, run, daemon) for name, daemon in daemons.items()}
        cold = {name: partial(_closures, stand, daemon) for name, daemon in daemons.items()}
        for limits, how in ((nullcontext(), ""), (_limited(daemons), f", {PART:g} core each")):
            with limits:
                figures += _rates(stand, hits, cold, how)
        return figures
    finally:
        for daemon in daemons.values():
            daemon.kill()


def _rates(
    stand: Stand,
    hits: Mapping[str, Callable[[], Sample]],
    cold: Mapping[str, Callable[[], Sample]],
    how: str,
) -> list[Figure]:
    series = alternate(hits, rounds=stand.rounds, noise=stand.noise)
    figures = _figures(series, f"narinfo hit{how}", "requests/s", ("CPU, µs/request", "cpu_us"))
    alternate(cold, rounds=1, noise=stand.noise)  # warm
    series = alternate(cold, rounds=stand.rounds, noise=stand.noise)
    point = f"cold closures of {CLOSURE} paths, {CONNECTIONS} connections{how}"
    return figures + _figures(series, point, "closures/min", ("CPU, ms/path", "cpu_ms"))
