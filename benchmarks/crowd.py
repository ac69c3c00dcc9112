"""A crowd: many clients that ask at the same time for one NAR, which only the origin has.

In nginx, each client fetches from the origin, since proxy_store does not share a running transfer.
"""

from __future__ import annotations

from functools import partial

from benchmarks.go_program import nar_path
from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes, wait_until_idle
from benchmarks.report import Figure, compared
from benchmarks.rounds import ANCHOR, GO, OURS, Sample, Spread, alternate
from benchmarks.stand import Stand, get, sink

SIZE = 200 << 20
CLIENTS = 64
MOST_S = 8.0


def _crowd(stand: Stand, port: int, pid: int) -> Sample:
    made = stand.material.nar(SIZE)
    go = stand.go_daemon if stand.go_daemon and stand.go_daemon.port == port else None
    text = get(go.port if go else stand.daemon.port, f"/{made.digest}.narinfo")
    before = cpu_seconds(pid)
    found = dict(sink("crowd", port, nar_path(text), CLIENTS))
    found["cpu"] = (cpu_seconds(pid) - before) / (found["bytes"] / 2**30)
    if port == stand.daemon.port:
        stand.wait_until_stored(made).unlink()
    if go is not None:
        wait_until_idle(go.pid)
    stand.material.remove(made)
    return found


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    stand.pretouch()
    forget_peak(stand.daemon.pid)
    contenders = {
        ANCHOR: partial(_crowd, stand, stand.proxy_port, stand.nginx.pid),
        OURS: partial(_crowd, stand, stand.daemon.port, stand.daemon.pid),
    }
    if (go := stand.go_daemon) is not None:
        contenders[GO] = partial(_crowd, stand, go.port, go.pid)
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
    point = f"{CLIENTS} clients, one NAR of {SIZE >> 20} MiB that is not stored"
    return [
        compared(series, "seconds", point=point, label="s, all of them", most=MOST_S, digits=".1f"),
        compared(series, "cpu", point=point, label="CPU, s/GiB sent", digits=".2f"),
        Figure(
            point=point,
            quantity="RSS peak, MiB",
            ours=Spread([rss_peak_bytes(stand.daemon.pid) / 2**20]),
        ),
    ]
