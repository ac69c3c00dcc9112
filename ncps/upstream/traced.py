"""Traced: the span of a request to an upstream, by OpenTelemetry's conventions for HTTP clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from ncps.observe.tracing.spans import Span, Value, current, span


class Answered(Protocol):
    """The part of an answer that a span needs."""

    @property
    def status(self) -> int: ...


A = TypeVar("A", bound=Answered)


async def traced(method: str, url: str, ask: Callable[[], Awaitable[A]], resent: int = 0) -> A:
    """Make one request, within a span that ends at the head of its answer.

    :param resent: number of times that the same request was made before.
    """
    with span(method, kind="client") as step:
        if not step.is_recording:
            return await ask()
        _describe(step, method, url, resent)
        answer = await ask()
        step.set("http.response.status_code", answer.status)
        return answer


def _describe(step: Span, method: str, url: str, resent: int) -> None:
    """Describe a request in a span, without credentials and query, which may be a signature."""
    facts: dict[str, Value] = {"http.request.method": method}
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return  # the request itself fails for that soon
    place = parts.netloc.rpartition("@")[2]
    facts["server.address"], facts["server.port"] = parts.hostname or "", port
    facts["url.full"] = urlunsplit((parts.scheme, place, parts.path, "", ""))
    if resent:
        facts["http.request.resend_count"] = resent
    step.set_all(facts)


def trace_headers() -> dict[bytes, bytes]:
    """Return the headers by which a server continues the trace of the work that runs now."""
    headers = current().headers().items()
    return {name.encode("ascii"): value.encode("latin-1", "replace") for name, value in headers}
