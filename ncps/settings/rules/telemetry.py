"""The rules of the settings of telemetry."""

from __future__ import annotations

from urllib.parse import urlsplit

from ncps.settings.draft import Draft
from ncps.settings.schema.telemetry import ALL

_PREFIX = "opentelemetry."


def decide_telemetry(draft: Draft) -> None:
    """Check that there is at most one collector, and that traceparent goes to known upstreams."""
    values = draft.values
    if values.get(f"{_PREFIX}grpc_url") and values.get(f"{_PREFIX}http_url"):
        draft.problems.append(
            "otel-grpc-url and otel-http-url are two ways to one collector: give one of them"
        )
    names = values.get(f"{_PREFIX}propagate_to")
    upstreams = values.get("cache.upstream.upstreams")
    if isinstance(names, tuple) and isinstance(upstreams, tuple):
        known = {place for upstream in upstreams for place in _places(getattr(upstream, "url", ""))}
        for name in names:
            if name != ALL and name.lower() not in known:
                draft.problems.append(
                    f"otel-propagate-to: no upstream is at {name}: it should be all, or one of"
                    f" {', '.join(sorted(known))}"
                )
    if not values.get(f"{_PREFIX}enabled", True) and not draft.problems:
        draft.warnings.extend(
            f"{flag} has no effect without otel-enabled"
            for key, flag in (("grpc-url", "otel-grpc-url"), ("http-url", "otel-http-url"))
            if draft.is_given(f"{_PREFIX}{key}") and values.get(_PREFIX + key.replace("-", "_"))
        )


def _places(url: str) -> set[str]:
    """Return the names of an upstream: its host, with and without the port."""
    parts = urlsplit(url)
    return {parts.netloc.lower(), (parts.hostname or "").lower()} - {""}


def gets_traces(url: str, names: tuple[str, ...]) -> bool:
    """Whether the setting names an upstream, which then gets our traceparent."""
    return ALL in names or bool(_places(url) & {name.lower() for name in names})
