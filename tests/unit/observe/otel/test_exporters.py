"""The destination of each signal."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused
from ncps.observe.otel.exporters import GRPC, HTTP, TRACES, Way, exporter, way_of
from ncps.observe.process_metrics import SIGNALS
from ncps.settings.schema.telemetry import OpenTelemetrySettings

EVERYWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://else:4317"}


def ways(environ: dict[str, str] | None = None, **settings: Any) -> list[tuple[str, str]]:
    found = [way_of(signal, OpenTelemetrySettings(**settings), environ or {}) for signal in SIGNALS]
    return [(way.protocol, way.url) for way in found]


class WayTests(SynchronousTestCase):
    def test_our_settings_win(self) -> None:
        """They override the variables of OpenTelemetry, for all signals."""
        grpc = ways(EVERYWHERE, grpc_url="http://c:4317")
        self.assertEqual([("grpc", "http://c:4317")] * 3, grpc)
        http = ways(EVERYWHERE, http_url="http://c:4318")
        self.assertEqual(
            [("http/protobuf", f"http://c:4318/v1/{signal}") for signal in SIGNALS], http
        )

    def test_the_variables_name_a_collector(self) -> None:
        """For all signals or for one; gRPC is the default protocol."""
        self.assertEqual([("grpc", "")] * 3, ways(EVERYWHERE))
        protocol = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        self.assertEqual([("http/protobuf", "")] * 3, ways(EVERYWHERE | protocol))
        one = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://else:4317"}
        self.assertEqual([("grpc", ""), ("console", ""), ("none", "")], ways(one))

    def test_without_a_collector_there_is_standard_output(self) -> None:
        """Logs are there already, so they are not sent."""
        self.assertEqual([("console", ""), ("console", ""), ("none", "")], ways())

    def test_a_signal_can_be_left_out(self) -> None:
        """The standard variable turns it off."""
        found = ways({"OTEL_METRICS_EXPORTER": "none"}, grpc_url="http://c:4317")
        self.assertEqual(["grpc", "none", "grpc"], [protocol for protocol, _ in found])

    def test_wrong_variables_are_told(self) -> None:
        """The error names the variable and says what is right."""
        for name, value in (
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ):
            error = self.assertRaises(Refused, ways, EVERYWHERE | {name: value})
            self.assertRegex(str(error), f"^{name} should be ")

    def test_wrong_headers_are_told_without_their_value(self) -> None:
        """The library would ignore them, and log their values."""
        name = "OTEL_EXPORTER_OTLP_HEADERS"
        self.patch(os, "environ", EVERYWHERE | {name: "authorization Bearer hunter2"})
        for protocol in (GRPC, HTTP):
            way = Way(protocol=protocol, url="http://c:1")
            error = self.assertRaises(Refused, exporter, TRACES, way, OpenTelemetrySettings())
            self.assertIn(f"environment {name} should be NAME=VALUE", str(error))
            self.assertNotIn("hunter2", str(error))

    def test_certificates_that_cannot_be_read_are_told(self) -> None:
        """The library would use other certificates."""
        for name in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY"):
            self.patch(os, "environ", {name: "/nonexistent/ca.pem"})
            way = Way(protocol=GRPC, url="https://c:1")
            error = self.assertRaises(Refused, exporter, TRACES, way, OpenTelemetrySettings())
            self.assertIn(f"environment {name} should be a file", str(error))
