"""Memory with two hundred slow readers of one large NAR that is still arriving."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.machine import PROJECT
from benchmarks.material import KEY
from benchmarks.processes import rss_bytes
from benchmarks.report import Figure
from benchmarks.rounds import RoundsError, Spread
from benchmarks.stand import Stand, get
from tests.e2e.daemon import Daemon, UpstreamCache

SIZE = 2 << 30
READERS = 200
READER_RATE = 256 << 10  # bytes a second, each
ORIGIN_RATE = 64 << 20  # so that the NAR arrives for half a minute
LONGEST = 28.0
LEVEL_S = 10.0
LEVEL_BYTES = 1 << 20
MOST_MIB = 150.0


def measure(stand: Stand) -> list[Figure]:
    """Measure with a daemon of its own."""
    generator = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generator", str(SIZE), str(ORIGIN_RATE)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
    )
    try:
        assert generator.stdout is not None
        origin = json.loads(generator.stdout.readline())
        caches = [UpstreamCache(f"http://127.0.0.1:{origin['port']}", KEY.public)]
        daemon = Daemon(stand.fresh("slow"), caches)
        try:
            daemon.start()
            get(daemon.port, f"/{origin['digest']}.narinfo")
            return _watch(daemon, origin["path"])
        finally:
            daemon.kill()
    finally:
        generator.kill()
        generator.communicate()


def _watch(daemon: Daemon, path: str) -> list[Figure]:
    idle = rss_bytes(daemon.pid)
    command = [
        *(sys.executable, "-m", "benchmarks.sink", "slow"),
        *(str(daemon.port), path, str(READERS), str(READER_RATE)),
    ]
    readers = subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    began = levelled = time.monotonic()
    peak = idle
    while (now := time.monotonic()) < began + LONGEST and now < levelled + LEVEL_S:
        time.sleep(0.1)
        seen = rss_bytes(daemon.pid)
        if seen > peak + LEVEL_BYTES:
            levelled = now
        peak = max(peak, seen)
    is_in_flight = not daemon.stored_nars()
    output, _ = readers.communicate()
    found = json.loads(output)
    if found["errors"] or found["started"] < READERS or not is_in_flight:
        raise RoundsError(f"{found}, in flight to the end: {is_in_flight}")
    point = f"{READERS} slow readers of {SIZE >> 30} GiB in flight"
    per_reader = found["bytes"] / found["seconds"] / READERS / 2**10
    return [
        Figure(
            point=point,
            quantity="RSS over idle, MiB",
            ours=Spread([(peak - idle) / 2**20]),
            most=MOST_MIB,
        ),
        Figure(point=point, quantity="idle RSS, MiB", ours=Spread([idle / 2**20])),
        Figure(point=point, quantity="KiB/s each", ours=Spread([per_reader])),
    ]
