"""The cost of tracing for a request: off, on, and with a collector that hangs.

`NCPS_BENCHMARK_BEFORE` may name another checkout, such as one without tracing. It is then the
anchor instead of a daemon with tracing off. Each daemon has the same narinfos and one small NAR. On
a busy machine, compare the CPU time of a request rather than rates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.material import KEY
from benchmarks.narinfo_hits import wrk
from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.stand import Stand, get
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.integration.servers.collector import Collector, DeafCollector

COUNT = 500
SMALL = 4096
BEFORE = "NCPS_BENCHMARK_BEFORE"
SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OFF, ON, FEW, DEAF = "off", "on", "on, 1 in 100", "on, collector hangs"


def _daemons(stand: Stand, stack: ExitStack) -> dict[str, Daemon]:
    """Start a daemon for each kind of tracing."""
    collector = stack.enter_context(Collector(stand.fresh("collector"), "grpc"))
    deaf = DeafCollector()
    stack.callback(deaf.close)
    on = ("--otel-enabled", "--otel-grpc-url", collector.url)
    ways: dict[str, Sequence[str]] = {
        OFF: (),
        ON: on,
        FEW: (*on, "--otel-sampling-ratio", "0.01"),
        DEAF: ("--otel-enabled", "--otel-grpc-url", deaf.url),
    }
    found = {}
    before = os.environ.get(BEFORE)
    for name, options in [("before", ()), *ways.items()] if before else ways.items():
        upstream = UpstreamCache(stand.origin.url(), KEY.public)
        daemon = Daemon(stand.fresh("traced"), [upstream], options=options)
        if before and name == "before":
            daemon.environment = {"PYTHONPATH": before}
        found[name] = stack.enter_context(daemon)
    return found


def measure(stand: Stand) -> list[Figure]:
    """Measure."""
    digests = stand.material.narinfos(COUNT)
    made = stand.material.nar(SMALL)
    with ExitStack() as stack:
        daemons = _daemons(stand, stack)
        for daemon in daemons.values():
            for digest in [*digests, made.digest]:
                get(daemon.port, f"/{digest}.narinfo")
            get(daemon.port, made.path)
        narinfos = _listed(stand, [f"/{digest}.narinfo" for digest in digests])
        nars = _listed(stand, [made.path])
        return [
            *_point(stand, "ready narinfo", daemons, narinfos),
            *_point(stand, "narinfo with a sampled traceparent", daemons, narinfos, SAMPLED),
            *_point(stand, "small NAR", daemons, nars),
        ]


def _listed(stand: Stand, paths: Sequence[str]) -> Path:
    listed = stand.fresh("paths")
    listed.write_text("\n".join(paths) + "\n")
    return listed


def _point(
    stand: Stand, what: str, daemons: Mapping[str, Daemon], listed: Path, parent: str = ""
) -> list[Figure]:
    os.environ["TRACEPARENT_OF_WRK"] = parent
    run = partial(wrk, listed=listed, seconds=stand.seconds, least_bytes=100)
    contenders = {name: partial(run, daemon.port, daemon.pid) for name, daemon in daemons.items()}
    alternate(contenders, rounds=1, noise=stand.noise)  # warm
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)
    first, *others = daemons
    return [
        Figure(
            point=f"{what}, tracing {name} beside {first}",
            quantity=label,
            anchor=series.spread(first, quantity),
            ours=series.spread(name, quantity),
            ratio=series.ratio(quantity, name, first),
            digits=digits,
        )
        for name in others
        for label, quantity, digits in (
            ("requests/s", "rate", ",.0f"),
            ("CPU, µs/request", "cpu_us", ".1f"),
        )
    ]
