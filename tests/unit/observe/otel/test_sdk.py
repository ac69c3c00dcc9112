"""Spans of OpenTelemetry's SDK."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NotFound
from ncps.observe.otel.complaints import keep_complaints
from ncps.observe.otel.sdk import SdkTracer, sdk_tracer
from ncps.observe.tracing.spans import NO_SPAN, Step, TraceHeaders, span

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


class SdkTests(SynchronousTestCase):
    def setUp(self) -> None:
        keep_complaints()
        self.ended: list[ReadableSpan] = []
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1

    def tracer(self, ratio: float = 1.0) -> SdkTracer:
        return sdk_tracer(
            Resource({}), ParentBasedTraceIdRatio(ratio), self.ended.append, self.failed
        )

    def test_steps_are_parts_of_their_root(self) -> None:
        """With their attributes, events and links."""
        tracer = self.tracer()
        root, other = tracer.begin("root", "server", {"a": 1}), tracer.begin("other")
        with Step(root), span("step", {"b": "x"}, "client") as step:
            step.set("c", True)
            step.event("hedge", {"d": 2})
            step.link(other)
            step.link(NO_SPAN)
        inner, outer = self.ended
        assert inner.parent is not None
        assert inner.context is not None
        self.assertEqual(root.span_id, f"{inner.parent.span_id:016x}")
        self.assertEqual(root.trace_id, f"{inner.context.trace_id:032x}")
        self.assertEqual({"b": "x", "c": True}, dict(inner.attributes or {}))
        self.assertEqual(["hedge"], [event.name for event in inner.events])
        self.assertEqual([other.span_id], [f"{link.context.span_id:016x}" for link in inner.links])
        self.assertEqual(("root", {"a": 1}), (outer.name, dict(outer.attributes or {})))

    def test_an_absence_is_no_error(self) -> None:
        """A caller that left is no error either; all others are."""
        statuses = []
        for error in (NotFound("no"), CancelledError(), Corrupt("wrong"), KeyError("x")):
            step = self.tracer().begin("a")
            step.fail(error)
            step.end()
            statuses.append(self.ended[-1].status.is_ok)
            told = dict(self.ended[-1].attributes or {})
            self.assertEqual(type(error).__name__, told["error.type"])
        self.assertEqual([True, True, False, False], statuses)

    def test_an_error_about_a_name_that_is_no_utf8_can_be_sent(self) -> None:
        """Otherwise all spans of its batch would be lost."""
        step = self.tracer().begin("a")
        step.fail(Corrupt("name \udcff"))
        step.end()
        self.assertEqual("name \\udcff", self.ended[-1].status.description)

    def test_the_trace_of_a_caller_goes_on(self) -> None:
        """Its id comes from the header, which goes on with our span's id."""
        for ratio, flags in ((0.0, "01"), (1.0, "00")):
            caller = TraceHeaders((f"00-{TRACE}-{SPAN}-{flags}",), ("a=b",))
            step = self.tracer(ratio).begin("a", caller=caller)
            self.assertEqual((TRACE, flags == "01"), (step.trace_id, step.is_recording))
            sent = step.headers()
            self.assertEqual(f"00-{TRACE}-{step.span_id}-{flags}", sent["traceparent"])
            self.assertEqual("a=b", sent["tracestate"])

    def test_hostile_headers_begin_a_trace_of_our_own(self) -> None:
        """No wrong header is an error, and none is used."""
        zero = "0" * 32
        for parent in (
            ("",),
            ("x" * 65536,),
            (PARENT, PARENT),
            (f"{PARENT}-{'y' * 65536}",),
            (f"00-{zero}-{SPAN}-01",),
            (f"00-{TRACE}-{'0' * 16}-01",),
            (f"ff-{TRACE}-{SPAN}-01",),
            (f"00-{TRACE.upper()}-{SPAN}-01",),
            ("00-\\xff-\\0-01",),
            ("\N{KELVIN SIGN}" * 55,),
        ):
            step = self.tracer().begin("a", caller=TraceHeaders(parent))
            self.assertTrue(step.is_recording, parent[0][:80])
            self.assertNotIn(step.trace_id, {TRACE, zero}, parent[0][:80])
        self.assertEqual(0, self.failures)

    def test_a_hostile_state_is_left_out(self) -> None:
        """The trace continues without it."""
        for state in (("x" * 65536,), tuple(f"k{n}=v" for n in range(500)), ("=;,\\0" * 99,)):
            step = self.tracer().begin("a", caller=TraceHeaders((PARENT,), state))
            self.assertEqual(TRACE, step.trace_id)
            self.assertLess(len(step.headers().get("tracestate", "")), 600)

    def test_a_sampler_that_fails_stops_nothing(self) -> None:
        """The work goes on without a span, and the error is counted."""

        class Broken(Sampler):
            def should_sample(self, *_: Any, **__: Any) -> Any:
                raise RuntimeError("broken")

            def get_description(self) -> str:
                return "broken"

        tracer = sdk_tracer(Resource({}), Broken(), self.ended.append, self.failed)
        self.assertIs(NO_SPAN, tracer.begin("a"))
        self.assertEqual(1, self.failures)

    def test_an_outbox_that_fails_stops_nothing(self) -> None:
        """An error at the end of a span is counted, and not raised."""

        def put(_: ReadableSpan) -> None:
            raise RuntimeError("broken")

        tracer = sdk_tracer(Resource({}), None, put, self.failed)
        with Step(tracer.begin("a")):
            pass
        self.assertEqual(1, self.failures)
