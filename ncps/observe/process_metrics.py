"""Metrics of the process itself."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

SIGNALS = ("traces", "metrics", "logs")
"""Kinds of telemetry that a collector accepts."""

_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class ProcessMetrics:
    """Loop lag, lost log lines and lost telemetry; a part of `metrics.Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loop_lag = Histogram(
            "ncps_event_loop_lag_seconds",
            "How late the reactor ran a timer, measured every second.",
            buckets=_LAG,
            registry=registry,
        )
        self.log_dropped = Counter(
            "ncps_log_lines_dropped_total",
            "Lines of the log that are missing, because no program read them in time.",
            registry=registry,
        )
        self.telemetry_lost = Labelled(
            Counter(
                "ncps_telemetry_lost_total",
                "Spans, sets of metrics and log events that no collector accepted.",
                ["signal"],
                registry=registry,
            ),
            SIGNALS,
        )
        self.telemetry_errors = Counter(
            "ncps_telemetry_errors_total",
            "Errors of the library that makes spans; the traced work went on.",
            registry=registry,
        )
        self.untraced = Counter(
            "ncps_untraced_answers_total",
            "Ready answers that were sent without a span, while traces are on.",
            registry=registry,
        )


def catch_up(counter: Counter, count: Callable[[], int]) -> Callable[[], None]:
    """Return a function that raises a counter to the value of a count that only grows."""
    seen = 0

    def add() -> None:
        nonlocal seen
        now = count()
        counter.inc(now - seen)
        seen = now

    return add


class WorkerMetrics(Registered):
    """The processes of one machine."""

    def _add_workers(self) -> None:
        self.workers = self._gauge(
            "ncps_workers", "Processes that are configured to serve.", way="own"
        )
        self.workers.set(1)
        self.workers_answering = self._gauge(
            "ncps_workers_answering", "Processes whose metrics are in this answer, gauges included."
        )
        self.workers_answering.set(1)
        self.worker_restarts = self._counter(
            "ncps_worker_restarts_total", "Workers that replaced one that had ended."
        )
