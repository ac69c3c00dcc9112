"""A warm install by a real client: xz from nginx and from ncps, zstd from ncps after recompression.

The NARs hold libraries of this machine, so they compress as packages of a distribution do.
"""

from __future__ import annotations

import resource
import time
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from benchmarks.closure import DIRECT
from benchmarks.nginx import Nginx
from benchmarks.report import Figure
from benchmarks.rounds import OURS, Sample, alternate
from benchmarks.stand import Stand
from tests.e2e.closure import Closure, export, make_closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.nixclient import NixClient, find_release
from tests.twins import CONSTANTS, OPTIONS

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
LARGE = (3 << 20,) * 12
LEVEL = 3
"""Level of xz. Level 6, of the public caches, is as fast to unpack and much slower to make."""
SAME = "ncps, xz"
PATIENCE_S = 900.0


def contents(number: int, size: int) -> bytes:
    """Return a piece of the libraries of this machine, a different one for each number."""
    found, skipped = bytearray(), number * size
    for path in sorted(LIBRARIES.glob("*.so.*")):
        if path.is_symlink() or not path.is_file():
            continue
        length = path.stat().st_size
        if skipped >= length:
            skipped -= length
            continue
        found += path.read_bytes()[skipped:]
        skipped = 0
        if len(found) >= size:
            return bytes(found[:size])
    raise AssertionError(f"{LIBRARIES} has too few libraries")


def _install(stand: Stand, closure: Closure, url: str, key: str) -> Sample:
    """Copy with a client whose store is empty."""
    client = NixClient(closure.client.release, stand.fresh("client"))
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    client.copy(url, [key], closure.root)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": seconds, "cpu": cpu, "errors": 0}


def _wait_for_twins(stand: Stand, closure: Closure, daemon: Daemon) -> None:
    """Wait until the narinfos of all large NARs name a file in zstd."""
    deadline = time.monotonic() + PATIENCE_S
    for path in closure.paths:
        digest = path.rpartition("/")[2][:32]
        while True:
            with urlopen(f"{daemon.url}/{digest}.narinfo") as answer:
                fields = dict(line.split(": ", 1) for line in answer.read().decode().splitlines())
            if fields["Compression"] == "zstd" or int(fields["NarSize"]) < 10_000:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"no twin of {path}")
            time.sleep(0.2)


def libraries(stand: Stand) -> tuple[Closure, Nginx]:
    """Make a closure of libraries, and a server with its NARs in xz; the caller stops it."""
    release = find_release("system")
    if release is None:
        raise AssertionError("no nix on PATH")
    maker = NixClient(release, stand.fresh("maker"))
    closure = make_closure(maker, stand.fresh("sources"), small=0, large=LARGE, contents=contents)
    cache = export(closure, stand.fresh("cache"), compression="xz", level=LEVEL)
    return closure, Nginx(stand.fresh("warm-origin"), cache.directory, hold_open=True)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    closure, origin = libraries(stand)
    upstream = UpstreamCache(origin.url(), closure.public_key)
    plain = Daemon(stand.fresh("plain"), [upstream])
    ours = Daemon(stand.fresh("ours"), [upstream], options=OPTIONS)
    ours.is_forked, ours.constants = True, dict(CONSTANTS)
    try:
        for daemon in (plain, ours):
            daemon.start()
            _install(stand, closure, daemon.url, daemon.public_key())
        _wait_for_twins(stand, closure, ours)
        series = alternate(
            {
                DIRECT: partial(_install, stand, closure, origin.url(), closure.public_key),
                SAME: partial(_install, stand, closure, plain.url, plain.public_key()),
                OURS: partial(_install, stand, closure, ours.url, ours.public_key()),
            },
            rounds=stand.rounds,
            noise=stand.noise,
        )
    finally:
        plain.kill()
        ours.kill()
        origin.stop()
    return [
        Figure(
            point=f"warm nix copy of {len(closure.paths)} paths in xz, by {name}",
            quantity=f"{unit} (nginx: static xz)",
            anchor=series.spread(DIRECT, quantity),
            ours=series.spread(name, quantity),
            ratio=series.ratio(quantity, ours=name, anchor=DIRECT),
            digits=".2f",
        )
        for name in (SAME, OURS)
        for quantity, unit in (("wall", "s"), ("cpu", "CPU s of the client"))
    ]
