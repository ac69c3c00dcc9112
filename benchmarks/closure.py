"""Wall time of a real `nix copy` of a closure: from the origin, and through ncps, cold and warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.go_program import GoDaemon
from benchmarks.nginx import Nginx
from benchmarks.report import Figure, compared
from benchmarks.rounds import GO, OURS, Sample, alternate
from benchmarks.stand import Stand
from tests.e2e.closure import BinaryCache, Closure, export, make_closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.nixclient import NixClient, find_release

SMALL = 300
LARGE = (1 << 20,) * 40
DIRECT = "direct"


def _copy(stand: Stand, closure: Closure, url: str, key: str) -> float:
    """Copy with a client whose store is empty; return the seconds."""
    client = NixClient(closure.client.release, stand.fresh("client"))
    began = time.monotonic()
    client.copy(url, [key], closure.root)
    return time.monotonic() - began


def _direct(stand: Stand, closure: Closure, origin: Nginx) -> Sample:
    copy = partial(_copy, stand, closure, origin.url(), closure.public_key)
    return {"cold": copy(), "warm": copy(), "errors": 0}


def _through(stand: Stand, closure: Closure, make: Callable[[], Daemon]) -> Sample:
    daemon = make()
    daemon.start()
    try:
        copy = partial(_copy, stand, closure, daemon.url, daemon.public_key())
        return {"cold": copy(), "warm": copy(), "errors": 0}
    finally:
        daemon.kill()


def daemons(stand: Stand, url: str, key: str) -> dict[str, Callable[[], Daemon]]:
    """Return functions that make a new daemon for an upstream: ours, and the Go program if any."""
    upstreams = [UpstreamCache(url, key)]
    found: dict[str, Callable[[], Daemon]] = {
        OURS: lambda: Daemon(stand.fresh("daemon"), upstreams)
    }
    if (go := stand.go) is not None:
        found[GO] = lambda: GoDaemon(go, stand.fresh("go"), upstreams)
    return found


def made(
    stand: Stand, *, small: int = SMALL, large: Sequence[int] = LARGE
) -> tuple[Closure, BinaryCache]:
    """Make a closure and a binary cache of it; see `make_closure`."""
    release = find_release("system")
    if release is None:
        raise AssertionError("no nix on PATH")
    maker = NixClient(release, stand.fresh("maker"))
    closure = make_closure(maker, stand.fresh("sources"), small=small, large=large)
    return closure, export(closure, stand.fresh("cache"), compression="xz")


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    closure, cache = made(stand)
    origin = Nginx(stand.fresh("closure-origin"), cache.directory, hold_open=True)
    try:
        contenders = {DIRECT: partial(_direct, stand, closure, origin)}
        for name, make in daemons(stand, origin.url(), closure.public_key).items():
            contenders[name] = partial(_through, stand, closure, make)
        series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
    finally:
        origin.stop()
    return [
        compared(
            series,
            temperature,
            point=f"nix copy of {len(closure.paths)} paths, {temperature}",
            label="s (nginx: direct)",
            anchor=DIRECT,
            digits=".2f",
        )
        for temperature in ("cold", "warm")
    ]
