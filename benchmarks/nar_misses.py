"""NAR misses: a NAR that only the origin has, through ncps and through nginx with proxy_store.

The file of a compressed NAR has the same size, and the NAR inside is about four times as large.
Every fetch has a NAR of its own, which is deleted afterwards. CPU time counts until the NAR is
stored. ncps hashes the NAR and syncs it to disk; nginx does not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from attrs import evolve

from benchmarks.go_program import nar_path
from benchmarks.material import MadeNar
from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes, wait_until_idle
from benchmarks.report import Figure, compared
from benchmarks.rounds import ANCHOR, GO, OURS, Sample, Spread, alternate
from benchmarks.sink import Fetch
from benchmarks.stand import Stand, get, sink

SIZE = 256 << 20
SMALL = 1 << 20
SMALL_COUNT = 20
DIRECT = "direct"
COMPRESSIONS = ("none", "xz", "zstd")
LEAST = 0.35
MOST_ADDED_MS = 20.0


def _wait_for(path: Path) -> Path:
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"{path} does not appear")
        time.sleep(0.005)
    return path


def _made(stand: Stand, compression: str) -> MadeNar:
    if compression == "none":
        return stand.material.nar(SIZE)
    return stand.material.packed(SIZE, compression)


def _shown(made: MadeNar, port: int) -> MadeNar:
    """Return a NAR with the URL that a cache has for it."""
    return evolve(made, path=nar_path(get(port, f"/{made.digest}.narinfo")))


def _bulk(
    stand: Stand,
    compression: str,
    port: int,
    pid: int,
    settle: Callable[[MadeNar], None],
    *,
    has_narinfos: bool = True,
) -> Sample:
    """Fetch a NAR once.

    :param settle: waits until the server has stored it, and removes it.
    :param has_narinfos: whether the server is a cache of Nix, which gives the NAR its name.
    """
    made = _made(stand, compression)
    shown = _shown(made, port) if has_narinfos else made
    before = cpu_seconds(pid)
    found = dict(sink("once", port, shown.path))
    settle(shown)
    found["cpu"] = (cpu_seconds(pid) - before) / (made.size / 2**30)
    found["rate"] = found["bytes"] / found["seconds"] / 2**20
    stand.material.remove(made)
    return found


def _first_bytes(stand: Stand, port: int) -> Sample:
    """Fetch small NARs one after another on one connection."""
    waits = []
    connection = Fetch(port, "/nix-cache-info")
    for number in range(SMALL_COUNT + 2):
        made = stand.material.nar(SMALL)
        get(stand.daemon.port, f"/{made.digest}.narinfo")
        began = time.monotonic()
        connection.ask(made.path)
        connection.received = 0
        is_whole = False
        while not connection.received:
            is_whole = connection.take()
        if number >= 2:  # the first ones open connections
            waits.append(time.monotonic() - began)
        while not is_whole:
            is_whole = connection.take()
    return {"first_ms": median(waits) * 1000, "errors": 0}


def _check(stand: Stand, compression: str) -> None:
    """Check, without measuring, that all servers send the right bytes."""
    go = stand.go_daemon
    caches = [stand.daemon.port] + ([go.port] if go else [])
    for port in (*caches, stand.proxy_port):
        made = _made(stand, compression)
        shown = _shown(made, port) if port in caches else made
        if hashlib.sha256(get(port, shown.path)).digest() != made.sha256:
            raise AssertionError("wrong bytes")
        stand.material.remove(made)


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    stand.pretouch()
    figures = [figure for compression in COMPRESSIONS for figure in _large(stand, compression)]
    return [*figures, _added(stand)]


def _large(stand: Stand, compression: str) -> list[Figure]:
    _check(stand, compression)
    nginx, daemon = stand.nginx, stand.daemon
    plain = partial(_bulk, stand, compression, has_narinfos=False)
    cache = partial(_bulk, stand, compression)
    contenders = {
        ANCHOR: partial(
            plain,
            stand.proxy_port,
            nginx.pid,
            lambda made: _wait_for(Path(f"{nginx.store}{made.path}")).unlink(),
        ),
        OURS: partial(
            cache, daemon.port, daemon.pid, lambda made: stand.wait_until_stored(made).unlink()
        ),
        DIRECT: partial(plain, stand.origin_port, stand.origin.pid, lambda made: None),
    }
    if (go := stand.go_daemon) is not None:
        contenders[GO] = partial(cache, go.port, go.pid, lambda made: wait_until_idle(go.pid))
    forget_peak(daemon.pid)
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise, steady="rate")
    peak = rss_peak_bytes(stand.daemon.pid) / 2**20
    point = f"NAR miss, {SIZE >> 20} MiB, {compression}"

    def figure(label: str, quantity: str, digits: str, least: float | None = None) -> Figure:
        return compared(series, quantity, point=point, label=label, least=least, digits=digits)

    return [
        figure("MiB/s", "rate", ",.0f", LEAST),
        figure("CPU, s/GiB", "cpu", ".2f"),
        Figure(point=point, quantity="RSS peak, MiB", ours=Spread([peak])),
    ]


def _added(stand: Stand) -> Figure:
    ports = {
        ANCHOR: stand.proxy_port,
        OURS: stand.daemon.port,
        DIRECT: stand.origin_port,
    }
    series = alternate(
        {name: partial(_first_bytes, stand, port) for name, port in ports.items()},
        rounds=stand.rounds,
        noise=stand.noise,
    )
    return Figure(
        point=f"NAR miss, {SMALL >> 20} MiB",
        quantity="first byte after direct, ms",
        anchor=series.difference("first_ms", ANCHOR, DIRECT),
        ours=series.difference("first_ms", OURS, DIRECT),
        most=MOST_ADDED_MS,
        digits=".2f",
    )
