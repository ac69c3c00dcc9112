"""Telemetry of a process: variables that cannot be used."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused
from ncps.observe.metrics import Metrics
from ncps.observe.otel.telemetry import Subject, Telemetry
from ncps.settings.schema.telemetry import OpenTelemetrySettings


class VariableTests(SynchronousTestCase):
    def test_metrics_are_not_read_all_the_time(self) -> None:
        """Each reading takes time of the reactor's thread."""
        subject = Subject(facts={}, ratio=1.0, level="info")
        for value in ("0", "99", "-1", "often"):
            variables = {"OTEL_METRIC_EXPORT_INTERVAL": value}
            error = self.assertRaises(
                Refused,
                Telemetry,
                Clock(),
                OpenTelemetrySettings(),
                subject,
                Metrics(),
                variables,
            )
            self.assertIn("environment OTEL_METRIC_EXPORT_INTERVAL should be ", str(error))
