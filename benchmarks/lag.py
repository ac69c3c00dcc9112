"""Turns of the reactor during downloads, an upload, and background work at the same time.

The background work is inspection, eviction and recompression. The program recompresses when it has
nothing else to do; here it does so nevertheless.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.machine import PROJECT
from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.sink import Fetch
from benchmarks.stand import Stand, get
from benchmarks.warm import libraries
from tests.e2e.closure import Closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.machines.turns import VARIABLE, Turns, take_turns
from tests.twins import CONSTANTS, OPTIONS
from tests.waiting import wait_until

LARGE = 64 << 20
SMALL = 100_000
CLIENTS = 25
COLD = 400
COLD_SIZE = 48 << 10
COLD_CLIENTS = 8
UPLOAD = 64 << 20
SWITCHES = ("--cache-allow-put-verb", "--prometheus-enabled")
STORE = "160M"
"""So small that eviction always has to remove NARs."""
LEVEL = ("--cache-recompress-level", "19")
"""So slow that recompression lasts as long as the load."""
SECONDS = 10
LONGEST_S = 900.0
MOST_MS = 20.0
POINT = (
    f"{CLIENTS} downloads, {COLD_CLIENTS} cold ones, an upload, inspection, eviction and"
    " recompression"
)


def _load(stand: Stand, daemon: Daemon, running: ExitStack) -> list[subprocess.Popen[str]]:
    """Start the clients, each in a process of its own."""
    small, large = stand.material.nar(SMALL), stand.material.nar(LARGE)
    for made in (small, large):
        get(daemon.port, f"/{made.digest}.narinfo")
        get(daemon.port, made.path)
    pull = ("benchmarks.sink", "pull", str(daemon.port))
    words = [
        (*pull, small.path, str(CLIENTS - 5), str(SECONDS)),
        (*pull, large.path, "5", str(SECONDS)),
        ("benchmarks.senders", "whole", str(daemon.port), "1", str(UPLOAD)),
        ("benchmarks.cold_client", str(daemon.port), str(COLD_CLIENTS)),
    ]
    started = []
    for one in words:
        process = subprocess.Popen(
            [sys.executable, "-m", *one],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        running.callback(process.wait)
        running.callback(process.kill)
        started.append(process)
    pipe = started[-1].stdin
    assert pipe is not None
    cold = [stand.material.nar(COLD_SIZE) for _ in range(COLD)]
    pipe.write("".join(f"/{made.digest}.narinfo {made.path}\n" for made in cold))
    pipe.close()
    return started


def _fetch(daemon: Daemon, closure: Closure) -> None:
    """Fetch the NARs of a closure, which the daemon then recompresses."""
    for path in closure.paths:
        answer = get(daemon.port, f"/{path.rpartition('/')[2][:32]}.narinfo").decode()
        fields = dict(line.split(": ", 1) for line in answer.splitlines())
        get(daemon.port, f"/{fields['URL']}")


def _recompressed(daemon: Daemon) -> float:
    """Return the number of NARs that the daemon has recompressed."""
    for line in get(daemon.port, "/metrics").decode().splitlines():
        if line.startswith('ncps_recompressions_total{outcome="made"}'):
            return float(line.split()[1])
    return 0.0


def _ask(daemon: Daemon, started: list[subprocess.Popen[str]]) -> list[float]:
    """Ask for /healthz until the clients have ended; return the milliseconds of each answer."""
    probe, found = Fetch(daemon.port, "/healthz"), []
    end = time.monotonic() + LONGEST_S
    while any(process.poll() is None for process in started) and time.monotonic() < end:
        began = time.monotonic()
        probe.ask()
        while not probe.take():
            pass
        found.append((time.monotonic() - began) * 1000)
        time.sleep(0.005)
    probe.socket.close()
    return sorted(found)


def _figures(turns: Turns, answers: list[float]) -> list[Figure]:
    found = []
    for label, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)):
        found.append(
            Figure(
                point=POINT,
                quantity=f"turn, {label}, CPU ms",
                ours=Spread([turns.quantile_s(part) * 1000]),
                most=MOST_MS if label == "p99.9" else None,
                digits=".1f",
            )
        )
        at = min(len(answers) - 1, int(len(answers) * part))
        found.append(
            Figure(
                point=POINT,
                quantity=f"/healthz, {label}, ms",
                ours=Spread([answers[at]]),
                digits=".1f",
            )
        )
    return found


def measure(stand: Stand) -> list[Figure]:
    """Measure; print the stacks of long turns to standard error."""
    directory = stand.fresh("lag")
    closure, origin = libraries(stand)
    upstreams = (*stand.daemon.upstreams, UpstreamCache(origin.url(), closure.public_key))
    limits = ("--cache-max-size", STORE, "--cache-verify-rate", "16M")
    daemon = Daemon(directory, upstreams, options=(*SWITCHES, *limits, *OPTIONS, *LEVEL))
    file = directory / "turns"
    daemon.is_forked, daemon.main = True, "tests.machines.turns"
    daemon.environment, daemon.constants = {VARIABLE: str(file)}, dict(CONSTANTS)
    with ExitStack() as running:
        running.callback(origin.stop)
        running.callback(daemon.kill)
        daemon.start()
        _fetch(daemon, closure)
        wait_until(lambda: _recompressed(daemon) > 0, "recompression", daemon=daemon)
        started = _load(stand, daemon, running)
        before = _recompressed(daemon)
        take_turns(file)
        answers = _ask(daemon, started)
        turns = take_turns(file)
        if _recompressed(daemon) == before:
            raise AssertionError("nothing was recompressed during the load")
    stacks = directory / "turns.stacks"
    if stacks.exists():
        sys.stderr.write(stacks.read_text())
    return _figures(turns, answers)
