"""Log events in OpenTelemetry's form."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.otel.records import LogTap, record_of
from ncps.observe.tracing.spans import Step
from tests.fakes.spans import MemorySpan


class RecordTests(SynchronousTestCase):
    def tap(self, **fields: object) -> list[str]:
        found: list[Callable[[], str]] = []
        event = {"log_level": LogLevel.warn, "log_format": "m", "log_time": 1.5, **fields}
        LogTap(found.append)(event)
        return [item() for item in found]

    def test_an_event_has_the_trace_of_its_moment(self) -> None:
        """The record has level, time and fields, but no secrets."""
        root = MemorySpan("root")
        with Step(root, ends=False):
            (line,) = self.tap(log_namespace="ncps.x", status=503, password="hunter2")
        record = record_of(json.loads(line))
        self.assertEqual(int(root.trace_id, 16), record.trace_id)
        self.assertEqual(int(root.span_id, 16), record.span_id)
        self.assertEqual((1_500_000_000, "WARN", "m"), _facts(record))
        attributes = dict(record.attributes or {})
        self.assertEqual(503, attributes["http.response.status_code"])
        self.assertNotIn("hunter2", line)

    def test_an_event_without_a_trace_has_none(self) -> None:
        """It does not get the trace of the thread that sends it."""
        record = record_of({"time": "2026-01-01T00:00:00.000Z", "message": "x"})
        self.assertEqual((0, 0), (record.trace_id, record.span_id))

    def test_a_name_that_is_no_utf8_costs_no_batch(self) -> None:
        """Such bytes are escaped; otherwise a whole batch is lost."""
        (line,) = self.tap(
            log_namespace="ncps.x", log_format="{name}", name="a\udcff", path="\udcff"
        )
        record = record_of(json.loads(line))
        self.assertEqual("a\\udcff", record.body)
        self.assertEqual("\\udcff", dict(record.attributes or {})["url.path"])

    def test_lines_of_the_exporter_are_not_sent(self) -> None:
        """Otherwise it would send lines about a collector that is away."""
        for name in ("ncps.observe.otel", "opentelemetry.exporter", "grpc._channel"):
            self.assertEqual([], self.tap(log_namespace=name))


def _facts(record: object) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in ("timestamp", "severity_text", "body"))
