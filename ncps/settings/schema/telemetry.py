"""Settings of OpenTelemetry: traces, metrics and logs for a collector."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.telemetry import GRPC_URL, HEADERS, HTTP_URL, RATIO, Header
from ncps.settings.kinds.values import BOOLEAN, TEXT

ALL = "all"
"""The word for all upstreams."""


@frozen(kw_only=True)
class OpenTelemetrySettings:
    """The collector, and the telemetry that it gets."""

    enabled: bool = setting(
        BOOLEAN,
        "false",
        "Send traces, metrics and logs to a collector, or write traces and metrics to standard "
        "output if no URL is given. Needs the extra otel, with OpenTelemetry's packages.",
        flag="otel-enabled",
    )
    grpc_url: str = setting(
        GRPC_URL,
        "",
        "URL of the collector for OTLP over gRPC: http://HOST:4317, or https:// for TLS.",
        flag="otel-grpc-url",
    )
    http_url: str = setting(
        HTTP_URL,
        "",
        "URL of the collector for OTLP over HTTP: http://HOST:4318, or https:// for TLS. ncps adds "
        "/v1/traces, /v1/metrics and /v1/logs. Give this or --otel-grpc-url.",
        flag="otel-http-url",
    )
    headers: tuple[Header, ...] = setting(
        HEADERS,
        "",
        "Headers of each request to the collector, such as authorization=Bearer%20TOKEN. In a "
        "file, each line is a header.",
        flag="otel-headers",
        is_secret=True,
    )
    sampling_ratio: float = setting(
        RATIO,
        "1",
        "Part of all traces that ncps records, from 0 to 1. A request with a traceparent header "
        "follows the decision in it. OTEL_TRACES_SAMPLER overrides this setting.",
        flag="otel-sampling-ratio",
    )
    service_name: str = setting(
        TEXT,
        "ncps",
        "Name of this service in traces, metrics and logs.",
        flag="otel-service-name",
    )
    propagate_to: tuple[str, ...] = setting(
        TEXT,
        (),
        "Upstreams that get the traceparent header, so that their spans join our traces: their "
        "HOST or HOST:PORT, or all. Without it only the other processes of this cache get the "
        "header.",
        note="none",
        flag="otel-propagate-to",
    )
