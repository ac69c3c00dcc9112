"""Spans and tracers on OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as LibraryTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import CancelledError

from ncps import __version__
from ncps.errors import NotFound
from ncps.observe.log_lines import encodable
from ncps.observe.tracing.spans import (
    NO_ATTRIBUTES,
    NO_HEADERS,
    NO_SPAN,
    Attributes,
    Kind,
    Span,
    TraceHeaders,
    Tracer,
    Value,
)

P = ParamSpec("P")
S = TypeVar("S", bound="SdkSpan")

LONGEST_HEADER: Final = 512
"""Characters of a traceparent or a tracestate that are read, at most (512 in W3C's text)."""

LIMITS: Final = SpanLimits(
    max_span_attributes=64,
    max_events=64,
    max_links=64,
    max_event_attributes=16,
    max_link_attributes=16,
    max_attributes=64,
    max_span_attribute_length=512,
    max_attribute_length=512,
)
"""All limits of a span; for a missing one, the library would read a variable."""

_KINDS: Final = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_LONGEST_REASON: Final = 256


def _harmless(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Count errors of the library instead of raising them in the traced work."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:  # noqa: BLE001 - no request may fail because of its trace
            self.tracer.failed()

    return call


class SdkSpan(Span):
    """A span of the SDK.

    :ivar tracer: makes the spans inside this one.
    """

    __slots__ = ("_span", "is_recording", "span_id", "trace_id", "tracer")

    def __init__(self, tracer: SdkTracer, span: RecordedSpan) -> None:
        self.tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.is_recording = span.is_recording()
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"

    def child(
        self, name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES
    ) -> Span:
        return self.tracer.begin_in(
            set_span_in_context(self._span, Context()), name, kind, attributes
        )

    @_harmless
    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    @_harmless
    def set_all(self, facts: Attributes) -> None:
        self._span.set_attributes(facts)

    @_harmless
    def link(self, other: Span) -> None:
        if isinstance(other, SdkSpan):
            self._span.add_link(other._span.get_span_context())

    @_harmless
    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self._span.add_event(name, attributes)

    @_harmless
    def fail(self, error: BaseException) -> None:
        self._span.set_attribute("error.type", type(error).__name__)
        if isinstance(error, NotFound | CancelledError | GeneratorExit):
            return  # not an error: an absence, or a caller that has left
        self.failed(str(error))

    @_harmless
    def failed(self, reason: str) -> None:
        text = encodable(reason[:_LONGEST_REASON])
        self._span.set_status(Status(StatusCode.ERROR, text or None))

    @_harmless
    def rename(self, name: str) -> None:
        self._span.update_name(name)

    @_harmless
    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        try:
            _PROPAGATOR.inject(carrier, set_span_in_context(self._span, Context()))
        except Exception:  # noqa: BLE001 - see above
            self.tracer.failed()
        return carrier


class SdkTracer(Tracer):
    """Begins traces with the SDK.

    :param failed: called after each error of the library.
    """

    is_on = True

    def __init__(self, tracer: LibraryTracer, failed: Callable[[], object]) -> None:
        self.failed = failed
        self._tracer = tracer

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
        caller: TraceHeaders = NO_HEADERS,
    ) -> Span:
        context = Context()
        if caller.parent:
            try:
                context = _continued(caller)
            except Exception:  # noqa: BLE001 - no request may fail because of a header
                self.failed()
        return self.begin_in(context, name, kind, attributes)

    def begin_in(self, context: Context, name: str, kind: Kind, attributes: Attributes) -> Span:
        """Begin a span inside the one in a context of the library."""
        try:
            return SdkSpan(self, self._tracer.start_span(name, context, _KINDS[kind], attributes))
        except Exception:  # noqa: BLE001 - no request may fail because of its trace
            self.failed()
            return NO_SPAN


def _continued(caller: TraceHeaders) -> Context:
    """Return the context that headers name; an empty one if they do not follow W3C's rules."""
    if len(caller.parent) != 1 or len(caller.parent[0]) > LONGEST_HEADER:
        return Context()
    carrier = {"traceparent": list(caller.parent)}
    if caller.state and sum(map(len, caller.state)) + len(caller.state) - 1 <= LONGEST_HEADER:
        carrier["tracestate"] = list(caller.state)
    return _PROPAGATOR.extract(carrier, Context())


class Ended(SpanProcessor):
    """A processor that passes each ended span to a function."""

    def __init__(self, put: Callable[[ReadableSpan], object]) -> None:
        self._put = put

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`; pass on spans that are sampled."""
        if span.context.trace_flags.sampled:
            self._put(span)


def sdk_tracer(
    resource: Resource,
    sampler: Sampler | None,
    put: Callable[[ReadableSpan], object],
    failed: Callable[[], object],
) -> SdkTracer:
    """Make a tracer.

    :param sampler: None for the sampler that OTEL_TRACES_SAMPLER names.
    :param put: called with each ended span.
    """
    provider = TracerProvider(
        sampler=sampler, resource=resource, shutdown_on_exit=False, span_limits=LIMITS
    )
    provider.add_span_processor(Ended(put))
    return SdkTracer(provider.get_tracer("ncps", __version__), failed)
