"""The span of a request, by OpenTelemetry's conventions for HTTP servers."""

from __future__ import annotations

from typing import Final

from twisted.web.http_headers import Headers

from ncps.observe.metrics import METHODS, OTHER_METHOD
from ncps.observe.tracing.spans import Span, TraceHeaders, Tracer, Value
from ncps.web.fast.ledger import Access

_MOST: Final = 2
"""Headers of one name that are read: a second traceparent makes the first one invalid."""
_MOST_STATES: Final = 32
_LONGEST: Final = 1024
_LONGEST_AGENT: Final = 200
_VERSIONS: Final = {b"HTTP/1.0": "1.0", b"HTTP/1.1": "1.1"}


def begun(
    tracer: Tracer, method: bytes, path: bytes, version: bytes, headers: Headers, client: str
) -> Span:
    """Begin the span of a request, in the trace that its headers name."""
    known = method.decode("latin-1")
    known = known if known in METHODS else OTHER_METHOD
    agent = (headers.getRawHeaders(b"user-agent") or [b""])[0]
    facts: dict[str, Value] = {
        "http.request.method": known,
        "url.path": path.decode("ascii", "backslashreplace"),
        "url.scheme": "http",
        "network.protocol.version": _VERSIONS.get(version, "other"),
        "client.address": client,
    }
    if agent:
        facts["user_agent.original"] = agent[:_LONGEST_AGENT].decode("latin-1")
    return tracer.begin(
        known,
        "server",
        facts,
        TraceHeaders(
            _values(headers, b"traceparent", _MOST), _values(headers, b"tracestate", _MOST_STATES)
        ),
    )


def _values(headers: Headers, name: bytes, most: int) -> tuple[str, ...]:
    """Return the first values of a header, each cut to a length that is too long to be valid."""
    found = headers.getRawHeaders(name)
    return () if found is None else tuple(v[:_LONGEST].decode("latin-1") for v in found[:most])


def ended(span: Span, access: Access) -> None:
    """End the span of a request, with the same fields as the log."""
    if span.is_recording:
        method = access.method if access.method in METHODS else OTHER_METHOD
        span.rename(f"{method} {access.route}")
        facts: dict[str, Value] = {
            "http.route": access.route,
            "http.response.status_code": access.status,
            "http.response.body.size": access.size,
        }
        if access.cache:
            facts |= {"ncps.outcome": access.cache, "ncps.hash": access.digest}
        if access.upstream:
            facts["ncps.upstream"] = access.upstream
        if not access.is_complete:
            facts["ncps.complete"] = False
        if access.status >= 500:
            facts["error.type"] = str(access.status)
            span.failed("")
        span.set_all(facts)
    span.end()
