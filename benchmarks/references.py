"""The delay of other clients while ncps handles a narinfo with 100,000 references."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

from attrs import evolve

from benchmarks.report import Figure
from benchmarks.rounds import Spread
from benchmarks.stand import Stand, get
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import StorePath, SyntheticCache, to_base32
from tests.system.origin import Origin

REFERENCES = 100_000
MOST_MS = 50.0


def _made(cache: SyntheticCache, noise: random.Random) -> tuple[StorePath, bytes]:
    """Make a path and its narinfo."""
    path = cache.add(5000)
    names = [f"{to_base32(noise.randbytes(20))}-x" for _ in range(REFERENCES)]
    return path, evolve(path, references=tuple(names)).narinfo()


def _beside(daemon: Daemon, digest: str) -> list[float]:
    """Return the milliseconds of each /healthz during a request for an unknown narinfo, sorted."""
    found: list[float] = []
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(get, daemon.port, f"/{digest}.narinfo")
        while not asking.done():
            began = time.monotonic()
            get(daemon.port, "/healthz")
            found.append((time.monotonic() - began) * 1000)
        asking.result()
    return sorted(found)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    cache, origin = SyntheticCache(), Origin()
    made = [_made(cache, stand.noise) for _ in range(stand.rounds)]
    cache.mount(origin)
    for path, text in made:
        origin.serve(f"/{path.digest}.narinfo", text)
    origin.start()
    daemon = Daemon(stand.fresh("references"), [UpstreamCache(origin.url, cache.key.public)])
    try:
        daemon.start()
        rounds = [_beside(daemon, path.digest) for path, _ in made]
    finally:
        daemon.kill()
        origin.stop()
    point = f"/healthz beside a narinfo with {REFERENCES:,} references"
    return [
        Figure(
            point=f"{point}, median",
            quantity="ms",
            ours=Spread([times[len(times) // 2] for times in rounds]),
            digits=".1f",
        ),
        Figure(
            point=f"{point}, slowest",
            quantity="ms",
            ours=Spread([times[-1] for times in rounds]),
            most=MOST_MS,
            digits=".1f",
        ),
    ]
