"""Traces of uploads that a collector gets from a whole daemon."""

from __future__ import annotations

import signal

from tests.system.test_tracing import TRACE, TRACEPARENT, TracingStage, hex_of
from tests.system.uploader import ALLOWED, UploadStage
from tests.unit.cache.write.rig import upload


class UploadTests(TracingStage, UploadStage):
    def test_uploads_are_traced(self) -> None:
        """NAR and narinfo are in the client's trace, each with its own steps.

        The text of a refused narinfo is in no span.
        """
        collector = self.collector("grpc")
        daemon = self.traced(
            "http://127.0.0.1:9", options=["--otel-grpc-url", collector.url, ALLOWED]
        )
        daemon.start()
        one, field = upload("traced", "zstd", 3_000_000), f"traceparent: {TRACEPARENT}"
        text = one.narinfo.render()
        nar, narinfo = f"/upload/{one.url}", f"/upload/{one.digest}.narinfo"
        secret = text.replace(b"NarSize: ", b"NarSize: xyzzy")
        for path, body, status in (
            (nar, one.file, 201),
            (narinfo, secret, 400),
            (narinfo, text, 201),
            (nar, one.file, 200),
        ):
            self.assertEqual(status, self.put(daemon, path, body, field)[0], path)
        daemon.end(signal.SIGTERM)
        outcomes = {
            name: [
                span["attributes"]["ncps.outcome"] for span in self.wait_for_span(collector, name)
            ]
            for name in ("upload.nar", "upload.narinfo")
        }
        expected = {"upload.nar": ["stored", "known"], "upload.narinfo": ["refused", "stored"]}
        self.assertEqual(expected, outcomes)
        spans = {span["spanId"]: span for span in collector.spans()}
        above: dict[str, set[str]] = {}
        for span in spans.values():
            parent = spans.get(span.get("parentSpanId", ""))
            above.setdefault(span["name"], set()).add(parent["name"] if parent else "")
            if span["name"].startswith(("PUT ", "upload.", "nar.")):
                self.assertEqual(TRACE, hex_of(span["traceId"]), span["name"])
        for name, parents in {
            "PUT /upload/nar/{file}": {""},
            "PUT /upload/{hash}.narinfo": {""},
            "upload.nar": {"PUT /upload/nar/{file}"},
            "upload.narinfo": {"PUT /upload/{hash}.narinfo"},
            "nar.publish": {"upload.nar"},
            "catalog.mark_stored": {"nar.publish"},
            "storage.narinfos.put": {"upload.narinfo"},
        }.items():
            self.assertEqual(parents, above.get(name), f"{name}: {above}")
        first = min(collector.spans("upload.nar"), key=lambda s: int(s["startTimeUnixNano"]))
        self.assertEqual(len(one.file), first["attributes"]["ncps.bytes"])
        self.assertEqual(one.conventional.file_name, first["attributes"]["ncps.hash"])
        self.assertNotIn("xyzzy", collector.log)
