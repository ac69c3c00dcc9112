"""The cost of a dead upstream in front of a live one: the wall time of a cold `nix copy`.

Dead means that it refuses connections, or that it accepts them and never answers.
"""

from __future__ import annotations

import socket
import time
from functools import partial

from benchmarks.closure import made
from benchmarks.nginx import Nginx
from benchmarks.report import Figure
from benchmarks.rounds import Sample, alternate
from benchmarks.stand import Stand
from tests.e2e.closure import Closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.nixclient import NixClient
from tests.waiting import free_port

ALONE, REFUSED, SILENT = "alone", "refused", "silent"
MOST = 1.10
SMALL, LARGE = 150, (1 << 20,) * 10


def _cold(stand: Stand, closure: Closure, live: str, dead: str) -> Sample:
    """Copy through a fresh daemon whose first upstream is the dead one, if there is one."""
    urls = ([f"{dead}?priority=1"] if dead else []) + [live]
    upstreams = [UpstreamCache(url, closure.public_key) for url in urls]
    daemon = Daemon(stand.fresh("dead-daemon"), upstreams)
    daemon.start()
    try:
        client = NixClient(closure.client.release, stand.fresh("dead-client"))
        key = daemon.public_key()
        began = time.monotonic()
        client.copy(daemon.url, [key], closure.root)
        return {"cold": time.monotonic() - began, "errors": 0}
    finally:
        daemon.kill()


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    closure, cache = made(stand, small=SMALL, large=LARGE)
    origin = Nginx(stand.fresh("dead-origin"), cache.directory, hold_open=True)
    # Only the kernel accepts these connections, and nothing reads their bytes.
    silence = socket.create_server(("127.0.0.1", 0), backlog=4096)
    dead = {
        ALONE: "",
        REFUSED: f"http://127.0.0.1:{free_port()}",
        SILENT: f"http://127.0.0.1:{silence.getsockname()[1]}",
    }
    cold = partial(_cold, stand, closure, origin.url())
    try:
        series = alternate(
            {name: partial(cold, url) for name, url in dead.items()},
            rounds=stand.rounds,
            noise=stand.noise,
        )
    finally:
        origin.stop()
        silence.close()
    figures = [
        Figure(
            point=f"nix copy of {len(closure.paths)} paths, cold, dead upstream in front: {name}",
            quantity="s (nginx: without it)",
            anchor=series.spread(ALONE, "cold"),
            ours=series.spread(name, "cold"),
            ratio=series.ratio("cold", ours=name, anchor=ALONE),
            digits=".2f",
        )
        for name in (REFUSED, SILENT)
    ]
    bounds = [
        Figure(
            point=f"the same, {name}",
            quantity="times as long",
            ours=series.ratio("cold", ours=name, anchor=ALONE),
            most=MOST,
            digits=".2f",
        )
        for name in (REFUSED, SILENT)
    ]
    return [*figures, *bounds]
