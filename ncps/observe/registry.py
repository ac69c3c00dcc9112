"""The registry of metrics, and how the gauges of several processes become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ncps.observe.snapshots import Way

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class _Settling(Collector):
    """A collector without metrics, which is called before all others."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def collect(self) -> Iterable[Metric]:
        for call in self.calls:
            call()
        return ()


class Registered:
    """Metrics on a registry of their own.

    :ivar ways: by name of a gauge, how the values of several workers become one.
    """

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry(auto_describe=True)
        self.ways: dict[str, Way] = {}
        self._settling = _Settling()
        self.registry.register(self._settling)  # before all others, which it updates

    def _counter(self, name: str, text: str, labels: str = "") -> Counter:
        return Counter(name, text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, text: str, way: Way = "sum", labels: str = "") -> Gauge:
        """Make a gauge; `way` says how the values of several workers become one."""
        self.ways[name] = way
        return Gauge(name, text, labels.split(), registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: str = "", buckets: Iterable[float] = _LATENCY
    ) -> Histogram:
        return Histogram(name, text, labels.split(), buckets=tuple(buckets), registry=self.registry)

    def before_scrape(self, settle: Callable[[], object]) -> None:
        """Call `settle` before each scrape, to count events that are not counted yet."""
        self._settling.calls.append(settle)
