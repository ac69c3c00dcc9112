"""Traces, metrics and logs that collectors get from a whole daemon."""

from __future__ import annotations

import json
import signal
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.daemon import Daemon
from tests.integration.servers.collector import Collector, DeafCollector
from tests.system.crew import PATIENT, START_DEADLINE, WorkersStage
from tests.system.faults import Cut, Only, Stall
from tests.system.origin import Origin
from tests.waiting import wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}


def hex_of(text: str) -> str:
    """Return an id of protobuf's JSON in hexadecimal."""
    return b64decode(text).hex()


class TracingStage(WorkersStage):
    """Daemons with telemetry."""

    def collector(self, kind: str, certificate: tuple[Path, Path] | None = None) -> Collector:
        """Return a started collector, which speaks TLS if it has a certificate."""
        collector = Collector(self.directory / f"collector-{kind}", kind, certificate)
        self.addCleanup(collector.close)
        collector.start()
        return collector

    def traced(
        self,
        *upstreams: Origin | str,
        options: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Return a daemon with telemetry that is not started."""
        daemon = self.make_daemon(*upstreams, options=["--otel-enabled", *options])
        daemon.environment = {**SOON, **(more or {})}
        return daemon

    def wait_for_span(self, collector: Collector, name: str, count: int = 1) -> list[Any]:
        """Wait until there are `count` spans of a name; return them in the order of time."""
        wait_until(
            lambda: len(collector.spans(name)) >= count,
            f"{count} spans {name}",
            daemon=collector,
        )
        return sorted(collector.spans(name), key=lambda span: int(span["startTimeUnixNano"]))

    def lost(self, daemon: Daemon, what: str) -> float:
        """Return the number of items of a signal that no collector accepted."""
        text = self.ask(daemon, "/metrics").body.decode()
        name = f'ncps_telemetry_lost_total{{signal="{what}"}} '
        (line,) = [line for line in text.splitlines() if line.startswith(name)]
        return float(line.removeprefix(name))


class GrpcTests(TracingStage):
    def test_one_miss_is_one_trace(self) -> None:
        """All steps of a request are below it, in the trace of its client, also at the upstream."""
        collector = self.collector("grpc")
        path = self.cache.add()
        origin = self.mounted()
        headers = self.directory / "headers"
        headers.write_text("X-Scope: one\n")
        daemon = self.traced(
            origin,
            options=[
                *("--otel-grpc-url", collector.url, "--otel-headers-file", str(headers)),
                *("--otel-service-name", "mine", "--otel-propagate-to", "all"),
            ],
        )
        daemon.start()
        target = self.nar_target(daemon, path)
        self.assertEqual(200, self.ask(daemon, target, traceparent=TRACEPARENT).status)
        self.wait_for_span(collector, "storage.narinfos.put")
        daemon.end(signal.SIGTERM)
        self.check_trace(collector)
        self.check_upstream(origin, collector)
        self.check_resource(collector)
        self.check_metrics(collector)
        self.check_logs(collector, daemon)

    def check_trace(self, collector: Collector) -> None:
        """Check that each step of the NAR's request has the right parent."""
        (root,) = collector.spans("GET /nar/{file}")
        self.assertEqual((TRACE, PARENT), (hex_of(root["traceId"]), hex_of(root["parentSpanId"])))
        self.assertEqual("SPAN_KIND_SERVER", root["kind"])
        self.assertEqual("miss", root["attributes"]["ncps.outcome"])
        spans = {span["spanId"]: span for span in collector.spans()}
        mine = [span for span in spans.values() if span["traceId"] == root["traceId"]]
        above: dict[str, set[str]] = {}
        for span in mine:
            parent = spans.get(span.get("parentSpanId", ""))
            above.setdefault(span["name"], set()).add(parent["name"] if parent else "")
        for name, expected in {
            "nar.download": "GET /nar/{file}",
            "lease.try_hold": "nar.download",
            "upstream.open_nar": "nar.download",
            "GET": "upstream.open_nar",
            "nar.publish": "nar.download",
            "storage.nars.put_small": "nar.publish",
            "catalog.mark_stored": "nar.publish",
        }.items():
            self.assertEqual({expected}, above[name], name)
        (opened,) = collector.spans("upstream.open_nar")
        self.assertGreater(opened["attributes"]["ncps.bytes"], 100)

    def check_upstream(self, origin: Origin, collector: Collector) -> None:
        """Check that the upstream got the span of its own request."""
        told = [
            v.request.headers["traceparent"] for v in origin.log if v.target.startswith("/nar/")
        ]
        (asked,) = [s for s in collector.spans("GET") if "/nar/" in s["attributes"]["url.full"]]
        self.assertEqual([f"00-{TRACE}-{hex_of(asked['spanId'])}-01"], told)

    def check_resource(self, collector: Collector) -> None:
        """Check the facts about the process."""
        for line in collector.lines("traces"):
            self.assertEqual("mine", line["resource"]["service.name"])
            self.assertEqual("sqlite", line["resource"]["ncps.db_type"])
            self.assertEqual("one", line["headers"]["x-scope"])

    def check_metrics(self, collector: Collector) -> None:
        """Check that the last reading, at the end, has the download."""
        found = [m for m in collector.items("metrics") if m["name"] == "ncps_downloads_total"]
        points = {p["attributes"]["outcome"]: p["asDouble"] for p in found[-1]["sum"]["dataPoints"]}
        self.assertEqual(1, points["published"])

    def check_logs(self, collector: Collector, daemon: Daemon) -> None:
        """Check that the lines of the request have its trace, at the collector and in the log."""
        records = [r for r in collector.items("logs") if hex_of(r.get("traceId", "")) == TRACE]
        messages = [record["body"]["stringValue"] for record in records]
        self.assertTrue(any(m.startswith("GET /nar/") for m in messages), messages)
        self.assertTrue(any(m.startswith("stored ") for m in messages), messages)
        lines = [json.loads(line) for line in daemon.log.splitlines()]
        mine = [line for line in lines if line.get("trace_id") == TRACE]
        self.assertEqual({"ncps.web.accesslog"}, {x["logger"] for x in mine if "method" in x})
        self.assertTrue(any(line["message"].startswith("stored ") for line in mine))

    def test_a_resume_and_a_join_are_seen(self) -> None:
        """A cut is an event of the one download, its rest a second attempt, a join a link."""
        collector = self.collector("grpc")
        path = self.cache.add(size=400_000)
        origin = self.mounted(Only(Stall(100_000), 1), Only(Cut(200_000), 1))
        daemon = self.traced(origin, options=["--otel-grpc-url", collector.url, *PATIENT])
        daemon.start()
        target = self.nar_target(daemon, path)
        clients = [self.exchange(daemon, target) for _ in range(2)]
        origin.release()
        self.assertEqual([path.file] * 2, [client.finish().body for client in clients])
        self.wait_for_span(collector, "GET /nar/{file}", 2)
        self.wait_for_span(collector, "nar.download")
        attempts = self.wait_for_span(collector, "upstream.open_nar", 2)
        offsets = [attempt["attributes"]["ncps.offset"] for attempt in attempts]
        self.assertEqual((0, True), (offsets[0], offsets[1] > 0), offsets)
        (download,) = collector.spans("nar.download")
        self.assertIn("upstream failed", [event["name"] for event in download["events"]])
        linked = [
            [link["spanId"] for link in span.get("links", ())]
            for span in collector.spans("GET /nar/{file}")
        ]
        self.assertEqual([[], [download["spanId"]]], sorted(linked))

    def test_each_worker_tells_of_itself(self) -> None:
        """Each worker sends its number."""
        collector = self.collector("grpc")
        self.cache.add()
        daemon = self.traced(
            self.mounted(), options=["--otel-grpc-url", collector.url, "--workers", "2"]
        )
        daemon.start(deadline=START_DEADLINE)
        self.wait_until_all_serve(daemon)
        wait_until(
            lambda: (
                len({m["resource"]["service.instance.id"] for m in collector.lines("metrics")}) == 2
            ),
            "metrics of both workers",
            daemon=collector,
        )


class HttpTests(TracingStage):
    def test_all_signals_go_over_http(self) -> None:
        """The variables of OpenTelemetry name the collector; answers from memory have no span."""
        collector = self.collector("http")
        path = self.cache.add()
        daemon = self.traced(
            self.mounted(),
            more={
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            },
        )
        daemon.start()
        for _ in range(5):
            self.narinfo(daemon, path)
        self.assertEqual(
            200, self.ask(daemon, f"/{path.digest}.narinfo", traceparent=TRACEPARENT).status
        )
        self.wait_for_span(collector, "GET /{hash}.narinfo")
        wait_until(
            lambda: any(hex_of(s["traceId"]) == TRACE for s in collector.spans()),
            "the span of the request with a trace",
            daemon=collector,
        )
        wait_until(lambda: collector.items("metrics") and collector.items("logs"), "all signals")
        (line, *_) = collector.lines("traces")
        self.assertEqual("test", line["resource"]["deployment.environment.name"])
        asked = len(collector.spans("GET /{hash}.narinfo"))
        text = self.ask(daemon, "/metrics").body.decode()
        self.assertIn(f"ncps_untraced_answers_total {6 - asked}.0", text)

    def test_headers_of_strangers_do_no_harm(self) -> None:
        """A malformed trace header begins a new trace; one of 64 KiB is refused like any header."""
        collector = self.collector("http")
        origin = self.mounted()
        daemon = self.traced(
            origin, options=["--otel-http-url", collector.url, "--otel-sampling-ratio", "0"]
        )
        daemon.start()
        for value in ("x" * 4000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x7f\x01", ""):
            answer = self.ask(daemon, "/nix-cache-info", traceparent=value, tracestate=value)
            self.assertEqual(200, answer.status, value[:50])
        self.assertEqual(431, self.ask(daemon, "/", traceparent="x" * 65536).status)
        self.assertEqual(200, self.ask(daemon, "/", traceparent=TRACEPARENT).status)
        self.wait_for_span(collector, "GET /")
        self.assertEqual({TRACE}, {hex_of(span["traceId"]) for span in collector.spans()})
        self.assertNotIn(
            "traceparent", {name for visit in origin.log for name in visit.request.headers}
        )

    def test_without_a_collector_there_is_standard_output(self) -> None:
        """Without a collector each span is a line of JSON in the log."""
        daemon = self.traced(self.mounted())
        daemon.start()
        self.ask(daemon, "/pubkey", traceparent=TRACEPARENT)
        self.wait_for_log(daemon, '"name": "GET /pubkey"', f'"0x{TRACE}"')
        for line in daemon.log.splitlines():
            json.loads(line)


class BadCollectorTests(TracingStage):
    def check_served(self, url: str, flag: str) -> Daemon:
        """Check that a daemon serves, loses its telemetry, logs that once, and ends soon."""
        path = self.cache.add()
        daemon = self.traced(
            self.mounted(),
            options=[flag, url],
            more={"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "1"},
        )
        daemon.start()
        self.assert_served(daemon, path)
        self.wait_for_log(daemon, "the collector does not accept traces")
        wait_until(lambda: self.lost(daemon, "traces") > 0, "spans to be lost", daemon=daemon)
        self.assert_served(daemon, path)
        daemon.end(signal.SIGTERM)
        self.assertIn("ncps has stopped", daemon.log)
        self.assertEqual(1, daemon.log.count("the collector does not accept traces"))
        return daemon

    def deaf(self, says: bytes = b"") -> DeafCollector:
        """Return a program that is no collector."""
        collector = DeafCollector(says)
        self.addCleanup(collector.close)
        return collector

    def test_one_that_hangs(self) -> None:
        """It accepts connections, and sends nothing."""
        for flag in ("--otel-grpc-url", "--otel-http-url"):
            collector = self.deaf()
            self.check_served(collector.url, flag)
            self.assertGreater(collector.accepted, 0)

    def test_one_that_answers_garbage(self) -> None:
        """It sends neither HTTP nor gRPC."""
        garbage = b"\x00\xffgarbage\r\n\r\n" * 50
        for flag in ("--otel-grpc-url", "--otel-http-url"):
            self.check_served(self.deaf(garbage).url, flag)

    def test_one_that_is_away_and_comes_back(self) -> None:
        """ncps does not connect at the start, so the collector may come later."""
        collector = Collector(self.directory / "late", "http")
        self.addCleanup(collector.close)
        daemon = self.traced(
            self.mounted(),
            options=["--otel-http-url", collector.url],
            more={"OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
        )
        daemon.start()
        self.ask(daemon, "/pubkey")
        self.wait_for_log(daemon, "the collector does not accept traces")
        collector.start()
        wait_until(
            lambda: self.ask(daemon, "/pubkey") and collector.spans("GET /pubkey"),
            "spans after the collector has come",
            daemon=daemon,
        )
        self.wait_for_log(daemon, "the collector accepts traces again")

    def test_wrong_variables_end_the_start(self) -> None:
        """One line names the variable."""
        daemon = self.traced(self.mounted(), more={"OTEL_TRACES_SAMPLER": "sometimes"})
        self.assertRaises(AssertionError, daemon.start)
        self.assertIn("OTEL_TRACES_SAMPLER should be one of", daemon.log)

    def test_the_standard_switch_turns_all_off(self) -> None:
        """OTEL_SDK_DISABLED wins."""
        collector = self.deaf()
        daemon = self.traced(
            self.mounted(),
            options=["--otel-grpc-url", collector.url],
            more={"OTEL_SDK_DISABLED": "true"},
        )
        daemon.start()
        self.ask(daemon, "/pubkey")
        self.assertNotIn("telemetry goes to", daemon.log)
        self.assertTrue(urlsplit(collector.url).port)
