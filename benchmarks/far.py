"""Wall time of a cold `nix copy` of a closure from an origin with a round trip of 50 ms.

The client copies directly, through ncps without prefetch, and through ncps with prefetch.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.closure import made
from benchmarks.go_program import GoDaemon
from benchmarks.nginx import Nginx
from benchmarks.processes import cpu_seconds
from benchmarks.relay import Relay
from benchmarks.report import Figure
from benchmarks.rounds import GO, Sample, alternate
from benchmarks.stand import Stand
from tests.e2e.closure import Closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.nixclient import NixClient

ROUND_TRIP_S: Final = 0.05
DIRECT, OFF, SMALL = "direct", "off", "small"
MOST: Final = 0.4
"""Time of a copy with the default prefetch, at most, as a part of the time of a direct copy."""


def _copied(stand: Stand, closure: Closure, url: str, key: str) -> Sample:
    """Copy with a client whose store is empty."""
    client = NixClient(closure.client.release, stand.fresh("far-client"))
    began = time.monotonic()
    client.copy(url, [key], closure.root)
    return {"cold": time.monotonic() - began, "errors": 0}


def _ours(stand: Stand, closure: Closure, origin: str, policy: str) -> Sample:
    upstreams = [UpstreamCache(origin, closure.public_key)]
    options = ["--cache-prefetch", policy]
    return _through(stand, closure, Daemon(stand.fresh("far-daemon"), upstreams, options=options))


def _by_go(stand: Stand, closure: Closure, origin: str, go: Path) -> Sample:
    upstreams = [UpstreamCache(origin, closure.public_key)]
    return _through(stand, closure, GoDaemon(go, stand.fresh("far-go"), upstreams))


def _through(stand: Stand, closure: Closure, daemon: Daemon) -> Sample:
    """Copy through a daemon whose store is empty."""
    daemon.start()
    try:
        before = cpu_seconds(daemon.pid)
        copied = _copied(stand, closure, daemon.url, daemon.public_key())
        return {**copied, "cpu": cpu_seconds(daemon.pid) - before}
    finally:
        daemon.kill()


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    closure, cache = made(stand)
    origin = Nginx(stand.fresh("far-origin"), cache.directory, hold_open=True)
    try:
        relay = Relay(origin.ports[0], ROUND_TRIP_S)
        try:
            contenders = {
                DIRECT: partial(_copied, stand, closure, relay.url, closure.public_key),
                OFF: partial(_ours, stand, closure, relay.url, OFF),
                SMALL: partial(_ours, stand, closure, relay.url, SMALL),
            }
            if stand.go is not None:
                contenders[GO] = partial(_by_go, stand, closure, relay.url, stand.go)
            series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
        finally:
            relay.stop()
    finally:
        origin.stop()
    has_go = series.has(GO, "cold")
    copies = [
        Figure(
            point=f"nix copy of {len(closure.paths)} paths, cold, origin 50 ms away: {policy}",
            quantity="s (nginx: direct)",
            anchor=series.spread(DIRECT, "cold"),
            ours=series.spread(policy, "cold"),
            ratio=series.ratio("cold", ours=policy, anchor=DIRECT),
            go=series.spread(GO, "cold") if has_go else None,
            go_ratio=series.ratio("cold", ours=policy, anchor=GO) if has_go else None,
            digits=".2f",
        )
        for policy in (OFF, SMALL)
    ]
    cost = Figure(
        point="CPU time of ncps for that (nginx: fetching nothing ahead)",
        quantity="s",
        anchor=series.spread(OFF, "cpu"),
        ours=series.spread(SMALL, "cpu"),
        ratio=series.ratio("cpu", ours=SMALL, anchor=OFF),
        digits=".2f",
    )
    bound = Figure(
        point=f"the same, {SMALL}",
        quantity="times as long",
        ours=series.ratio("cold", ours=SMALL, anchor=DIRECT),
        most=MOST,
        digits=".2f",
    )
    return [*copies, cost, bound]
