"""Metrics of the process itself, whatever it serves."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class ProcessMetrics:
    """See the module; a part of `metrics.Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loop_lag = Histogram(
            "ncps_event_loop_lag_seconds",
            "How late the reactor ran a timer, looked at every second.",
            buckets=_LAG,
            registry=registry,
        )
        self.log_dropped = Counter(
            "ncps_log_lines_dropped_total",
            "Lines of the log that are missing, because nothing took them in time.",
            registry=registry,
        )


def catch_up(counter: Counter, count: Callable[[], int]) -> Callable[[], None]:
    """Return what adds to a counter by how much something that only grows has grown."""
    seen = 0

    def add() -> None:
        nonlocal seen
        now = count()
        counter.inc(now - seen)
        seen = now

    return add
