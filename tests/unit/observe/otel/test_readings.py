"""Metrics in OpenTelemetry's form."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Metric, Sum
from opentelemetry.sdk.resources import Resource
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.metrics import Metrics
from ncps.observe.otel.readings import MetricsReading, data_of
from ncps.observe.snapshots import Snapshot


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics(["up"])

    def read(self) -> dict[str, Metric]:
        reading = MetricsReading(2, Snapshot.of(self.metrics.registry))
        (of_resource,) = data_of(reading, Resource({}), 1).resource_metrics
        (scope,) = of_resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def points(self, name: str, kind: type[Any], **labels: object) -> Any:
        data = self.read()[name].data
        assert isinstance(data, kind)
        found: Any = data.data_points
        (point,) = [p for p in found if labels.items() <= dict(p.attributes).items()]
        return point

    def test_a_counter_is_a_sum_under_its_own_name(self) -> None:
        """The names are those of `/metrics`."""
        self.metrics.nar_served("hit", "success", "up").inc(3)
        labels = {"result": "hit", "status": "success", "upstream_hostname": "up"}
        point = self.points("ncps_nar_served_total", Sum, **labels)
        self.assertEqual((3, 1, 2), (point.value, point.start_time_unix_nano, point.time_unix_nano))
        self.assertTrue(self.read()["ncps_nar_served_total"].data.is_monotonic)  # type: ignore[union-attr]

    def test_a_gauge_is_a_gauge(self) -> None:
        """Even if its name ends like that of a counter."""
        self.assertEqual(1, self.points("ncps_upstream_count_total", Gauge).value)

    def test_a_histogram_has_buckets_that_do_not_add_up(self) -> None:
        """The one of HTTP has the names and labels of the conventions."""
        for seconds in (0.0005, 0.003, 400):
            self.metrics.request_seconds("/nar/{file}", "GET", "200").observe(seconds)
        labels = {"http.route": "/nar/{file}", "http.request.method": "GET"}
        labels_all: dict[str, Any] = {**labels, "http.response.status_code": 200}
        point = self.points("http.server.request.duration", Histogram, **labels_all)
        self.assertEqual(3, point.count)
        self.assertEqual([1, 1, 0], list(point.bucket_counts)[:3])
        self.assertEqual(1, point.bucket_counts[-1])
        self.assertEqual(len(point.explicit_bounds) + 1, len(point.bucket_counts))
        self.assertAlmostEqual(400.0035, point.sum)

    def test_every_metric_is_there(self) -> None:
        """The names are those of `/metrics`, except two of OpenTelemetry."""
        ours = {family.name for family in self.metrics.registry.collect() if family.samples}
        self.assertEqual(len(ours), len(self.read()))
