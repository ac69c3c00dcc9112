"""A crowd: many clients that ask at the same time for one NAR, which only the origin has.

In nginx, each client fetches from the origin, since proxy_store does not share a running transfer.
"""

from __future__ import annotations

from functools import partial

from benchmarks.processes import cpu_seconds, forget_peak, rss_peak_bytes
from benchmarks.report import Figure
from benchmarks.rounds import ANCHOR, OURS, Sample, Spread, alternate
from benchmarks.stand import Stand, get, sink

SIZE = 200 << 20
CLIENTS = 64
MOST_S = 8.0


def _crowd(stand: Stand, port: int, pid: int) -> Sample:
    made = stand.material.nar(SIZE)
    get(stand.daemon.port, f"/{made.digest}.narinfo")
    before = cpu_seconds(pid)
    found = dict(sink("crowd", port, made.path, CLIENTS))
    found["cpu"] = (cpu_seconds(pid) - before) / (found["bytes"] / 2**30)
    if port == stand.daemon.port:
        stand.wait_until_stored(made).unlink()
    stand.material.remove(made)
    return found


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    stand.pretouch()
    forget_peak(stand.daemon.pid)
    series = alternate(
        {
            ANCHOR: partial(_crowd, stand, stand.proxy_port, stand.nginx.pid),
            OURS: partial(_crowd, stand, stand.daemon.port, stand.daemon.pid),
        },
        rounds=stand.rounds,
        noise=stand.noise,
    )
    point = f"{CLIENTS} clients, one NAR of {SIZE >> 20} MiB that is not stored"
    return [
        Figure(
            point=point,
            quantity="s, all of them",
            anchor=series.spread(ANCHOR, "seconds"),
            ours=series.spread(OURS, "seconds"),
            ratio=series.ratio("seconds"),
            most=MOST_S,
            digits=".1f",
        ),
        Figure(
            point=point,
            quantity="CPU, s/GiB sent",
            anchor=series.spread(ANCHOR, "cpu"),
            ours=series.spread(OURS, "cpu"),
            ratio=series.ratio("cpu"),
            digits=".2f",
        ),
        Figure(
            point=point,
            quantity="RSS peak, MiB",
            ours=Spread([rss_peak_bytes(stand.daemon.pid) / 2**20]),
        ),
    ]
