"""Readings: our metrics at one moment, in OpenTelemetry's form.

The names are those of `/metrics`. Only the metrics of HTTP have OpenTelemetry's names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import frozen
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from ncps.observe.otel.exporters import Exporter
from ncps.observe.otel.records import SCOPE, is_success
from ncps.observe.snapshots import Family, Snapshot

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_HTTP: Final = {
    "http_server_request_duration_seconds": ("http.server.request.duration", "s"),
    "http_server_active_requests": ("http.server.active_requests", "{request}"),
}
_LABELS: Final = {
    "http_route": "http.route",
    "http_request_method": "http.request.method",
    "http_response_status_code": "http.response.status_code",
}
_UNITS: Final = (("_seconds", "s"), ("_bytes", "By"), ("_bytes_total", "By"), ("_ratio", "1"))
Labels = tuple[tuple[str, str], ...]


@frozen
class MetricsReading:
    """All metrics at one moment.

    :param at_ns: the moment, in nanoseconds since 1970.
    """

    at_ns: int
    snapshot: Snapshot


class MetricsSender:
    """Sends readings with an exporter.

    :param since_ns: the moment at which the process began to count, in nanoseconds since 1970.
    """

    def __init__(self, exporter: Exporter, resource: Resource, since_ns: int) -> None:
        self._exporter = exporter
        self._resource = resource
        self._since_ns = since_ns

    def send(self, items: Sequence[MetricsReading]) -> bool:
        """See `Sender`; the latest reading includes all earlier ones."""
        return is_success(self._exporter.export(data_of(items[-1], self._resource, self._since_ns)))

    def close(self) -> None:
        """See `Sender`."""
        self._exporter.shutdown()


def data_of(reading: MetricsReading, resource: Resource, since_ns: int) -> MetricsData:
    """Make the data for an exporter."""
    families = reading.snapshot.families.values()
    metrics = [_metric(family, since_ns, reading.at_ns) for family in families if family.samples]
    scope = ScopeMetrics(scope=SCOPE, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(family: Family, since_ns: int, at_ns: int) -> Metric:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    name, unit = _HTTP.get(name, (name, _unit(name)))
    data: Sum | Gauge | Histogram
    if family.kind == "histogram":
        data = Histogram(list(_histograms(family, since_ns, at_ns)), _CUMULATIVE)
    else:
        points = [
            NumberDataPoint(_attributes(labels), since_ns, at_ns, value)
            for (_, labels), value in family.samples.items()
            if math.isfinite(value)
        ]
        if family.kind == "counter":
            data = Sum(points, _CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge(points)
    return Metric(name=name, description=family.text, unit=unit, data=data)


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS if name.endswith(ending)), "1")


def _attributes(labels: Labels) -> dict[str, str | int]:
    found: dict[str, str | int] = {_LABELS.get(name, name): value for name, value in labels}
    code = found.get("http.response.status_code")
    if isinstance(code, str) and code.isdigit():
        found["http.response.status_code"] = int(code)
    return found


def _histograms(family: Family, since_ns: int, at_ns: int) -> Iterable[HistogramDataPoint]:
    """Join the samples of each series: its cumulative buckets, its count and its sum."""
    buckets: dict[Labels, list[tuple[float, float]]] = {}
    facts: dict[tuple[str, Labels], float] = {}
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            bound = float(dict(labels)["le"])
            series = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(series, []).append((bound, value))
        else:
            facts[name.removeprefix(family.name), labels] = value
    for series, found in buckets.items():
        found.sort()
        counts = [round(value) for _, value in found]
        more: dict[str, Any] = {"min": None, "max": None}  # not measured, so not sent
        yield HistogramDataPoint(
            attributes=_attributes(series),
            start_time_unix_nano=since_ns,
            time_unix_nano=at_ns,
            count=counts[-1],
            sum=facts.get(("_sum", series), 0.0),
            bucket_counts=[b - a for a, b in zip([0, *counts], counts, strict=False)],
            explicit_bounds=[bound for bound, _ in found if math.isfinite(bound)],
            **more,
        )
