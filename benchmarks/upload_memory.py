"""Memory during uploads of large NARs at the same time, unfinished and finished ones.

A hundred finished plain uploads would fill 50 GiB of disk. So there are a hundred unfinished plain
uploads, a hundred finished ones with small files, and fewer finished plain ones.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks.machine import PROJECT
from benchmarks.processes import rss_bytes
from benchmarks.report import Figure
from benchmarks.rounds import RoundsError, Spread
from benchmarks.stand import Stand
from tests.e2e.daemon import Daemon, UpstreamCache

SIZE = 500 << 20
"""Bytes of each NAR."""
UPLOADS = {"hold": 100, "plain": 20, "whole": 100}
HELD_S = 40.0
"""Seconds for which unfinished uploads are measured."""
LONGEST_S = 1800.0
MOST_MIB = 150.0


def measure(stand: Stand) -> list[Figure]:
    """Measure unfinished plain uploads, finished plain ones and finished ones in zstd."""
    figures = []
    for how, words in (
        ("hold", f"of {SIZE >> 20} MiB in flight for {HELD_S:g} s"),
        ("plain", f"of {SIZE >> 20} MiB, to the end"),
        ("whole", f"of NARs of {SIZE >> 20} MiB in zstd, to the end"),
    ):
        point = f"{UPLOADS[how]} uploads {words}"
        nobody = [UpstreamCache("http://127.0.0.1:9", "nobody-1:" + "A" * 43 + "=")]
        daemon = Daemon(stand.fresh(how), nobody, options=("--cache-allow-put-verb",))
        daemon.start()
        try:
            figures += _watch(daemon, how, point)
        finally:
            daemon.kill()
            shutil.rmtree(daemon.directory)
    return figures


def _watch(daemon: Daemon, how: str, point: str) -> list[Figure]:
    idle = peak = rss_bytes(daemon.pid)
    words = ("benchmarks.senders", how, str(daemon.port), str(UPLOADS[how]), str(SIZE))
    senders = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if how == "hold":
            assert senders.stdout is not None
            senders.stdout.readline()
        until = time.monotonic() + (HELD_S if how == "hold" else LONGEST_S)
        while time.monotonic() < until and senders.poll() is None:
            time.sleep(0.1)
            peak = max(peak, rss_bytes(daemon.pid))
        output, _ = senders.communicate(timeout=30)
    finally:
        senders.kill()
    found: dict[str, Any] = json.loads(output)
    if found["troubles"] or found["started"] < UPLOADS[how]:
        raise RoundsError(f"{found}")
    over = Spread([(peak - idle) / 2**20])
    rate = Spread([found["sent"] / found["seconds"] / 2**20])
    return [
        Figure(point=point, quantity="RSS over idle, MiB", ours=over, most=MOST_MIB),
        Figure(point=point, quantity="idle RSS, MiB", ours=Spread([idle / 2**20])),
        Figure(point=point, quantity="MiB/s on the wire", ours=rate),
    ]
