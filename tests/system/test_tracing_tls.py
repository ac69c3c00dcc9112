"""Telemetry for a collector that speaks TLS."""

from __future__ import annotations

import signal
from functools import partial

from tests.authorities import FILE, VARIABLE
from tests.integration.servers.certificates import Authority
from tests.system.test_tracing import TRACEPARENT, TracingStage
from tests.waiting import wait_until


class TlsTests(TracingStage):
    def test_a_collector_that_speaks_tls(self) -> None:
        """Its authority is in OTEL_EXPORTER_OTLP_CERTIFICATE, or is one of the system.

        A collector with another authority gets nothing.
        """
        authority = Authority(self.directory, "authority")
        certificate = authority.issue("collector")
        for kind, flag in (("grpc", "--otel-grpc-url"), ("http", "--otel-http-url")):
            collector = self.collector(kind, certificate)
            for name, file in (
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.path)),
                (VARIABLE, str(authority.path)),
                (VARIABLE, FILE),
            ):
                daemon = self.traced(
                    self.mounted(),
                    options=[flag, collector.url],
                    more={name: file, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
                )
                daemon.start()
                before = len(collector.spans())
                self.ask(daemon, "/pubkey", traceparent=TRACEPARENT)
                if file == FILE:
                    self.wait_for_log(daemon, "the collector does not accept traces")
                    self.assertEqual(before, len(collector.spans()))
                else:
                    self.wait_for_span(collector, "GET /pubkey", before + 1)
                    for what in ("metrics", "logs"):
                        wait_until(partial(collector.items, what), what, daemon=collector)
                daemon.end(signal.SIGTERM)
