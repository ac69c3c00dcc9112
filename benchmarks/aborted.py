"""Memory after thousands of clients have left in the middle of a large NAR."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.processes import rss_bytes
from benchmarks.report import Figure
from benchmarks.rounds import RoundsError, Spread
from benchmarks.stand import Stand, get
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import StorePath, SyntheticCache
from tests.system.origin import Origin

SIZE = 40_000_000
PATHS = 5
GETS = 2_500
CLIENTS = 50
READ = 1 << 20  # bytes after which a client leaves
SETTLED_S = 35.0  # the daemon gives memory back to the kernel every 30 s
MOST_MIB = 150.0


def _target(daemon: Daemon, path: StorePath) -> str:
    """Return the path of the NAR's URL in the daemon's narinfo."""
    text = get(daemon.port, f"/{path.digest}.narinfo").decode()
    (url,) = (line.removeprefix("URL: ") for line in text.splitlines() if line.startswith("URL: "))
    return f"/{url}"


def _abort(port: int, target: str) -> None:
    """Ask for a NAR, read its beginning and leave."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        left = READ
        while left > 0:
            piece = client.recv(min(left, 1 << 16))
            if not piece:
                raise RoundsError(f"{target} ended {left} bytes too early")
            left -= len(piece)


def measure(stand: Stand) -> list[Figure]:
    """Measure with a daemon of its own; the first clients ask for NARs that are not stored yet."""
    cache, origin = SyntheticCache(), Origin()
    paths = [cache.add(SIZE) for _ in range(PATHS)]
    cache.mount(origin)
    origin.start()
    daemon = Daemon(stand.fresh("aborted"), [UpstreamCache(origin.url, cache.key.public)])
    try:
        daemon.start()
        idle = rss_bytes(daemon.pid)
        targets = [_target(daemon, path) for path in paths]
        peak = idle
        with ThreadPoolExecutor(CLIENTS) as threads:
            asked = [
                threads.submit(_abort, daemon.port, targets[number * PATHS // GETS])
                for number in range(GETS)
            ]
            for each in asked:
                each.result()
                peak = max(peak, rss_bytes(daemon.pid))
        time.sleep(SETTLED_S)
        after = rss_bytes(daemon.pid)
    finally:
        daemon.kill()
        origin.stop()
    point = f"{GETS:,} aborted GETs of {SIZE // 10**6} MB"
    return [
        Figure(
            point=point,
            quantity="RSS afterwards, MiB",
            ours=Spread([after / 2**20]),
            most=MOST_MIB,
        ),
        Figure(point=point, quantity="peak RSS, MiB", ours=Spread([peak / 2**20])),
        Figure(point=point, quantity="idle RSS, MiB", ours=Spread([idle / 2**20])),
    ]
