"""Records: log events in OpenTelemetry's form, made in the thread that sends them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordLimits, ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from ncps import __version__
from ncps.observe.log_lines import encodable
from ncps.observe.logs import json_line
from ncps.observe.otel.exporters import Exporter

BORROWED: Final = ("opentelemetry._logs", "opentelemetry.sdk._logs")
"""Private names of the library, whose part for logs is not stable yet."""
SCOPE: Final = InstrumentationScope("ncps", __version__)
_LIMITS: Final = LogRecordLimits(64, 32768, 64, 32768)
"""All limits of a record; for a missing one, the library would read a variable each time."""
_OWN: Final = ("ncps.observe.otel", "opentelemetry", "grpc")
"""Loggers whose events are not sent, since most say that the collector is away."""
_SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "fatal": SeverityNumber.FATAL,
}
_NAMES: Final = {
    "logger": "ncps.logger",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "bytes": "http.response.body.size",
    "client": "client.address",
    "cache": "ncps.outcome",
    "hash": "ncps.hash",
    "upstream": "ncps.upstream",
    "error": "exception.message",
    "traceback": "exception.stacktrace",
}
"""Names of fields in OpenTelemetry's conventions, if there is one; others begin with ncps."""


@implementer(ILogObserver)
class LogTap:
    """An observer that puts single events into an outbox as lines, and batches unchanged.

    It writes the line of an event immediately, since the fields may change later.
    """

    def __init__(self, put: Callable[[Callable[[], str]], object]) -> None:
        self._put = put

    def __call__(self, event: LogEvent) -> None:
        """Put an event into the outbox."""
        if str(event.get("log_namespace", "")).startswith(_OWN):
            return
        batch = event.get("log_batch")
        if batch is not None:
            self._put(batch.json_lines)
        else:
            line = json_line(event)
            self._put(lambda: line)


class LogSender:
    """Sends lines with an exporter, as records."""

    def __init__(self, exporter: Exporter, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource

    def send(self, items: Sequence[Callable[[], str]]) -> bool:
        """See `Sender`."""
        found = [
            ReadableLogRecord(record_of(fields), self._resource, SCOPE, _LIMITS)
            for item in items
            for fields in _read(item())
        ]
        return is_success(self._exporter.export(found))

    def close(self) -> None:
        """See `Sender`."""
        self._exporter.shutdown()


def _read(lines: str) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        if line:
            yield json.loads(line)


def is_success(result: object) -> bool:
    """Whether the result of an exporter is success."""
    return result is True or getattr(result, "name", "") == "SUCCESS"


def record_of(fields: Mapping[str, Any]) -> LogRecord:
    """Make a record from the fields of a log line."""
    rest = dict(fields)
    level, message = str(rest.pop("level", "info")), str(rest.pop("message", ""))
    moment = _nanoseconds(str(rest.pop("time", "")))
    context = _context(str(rest.pop("trace_id", "")), str(rest.pop("span_id", "")))
    return LogRecord(
        timestamp=moment,
        observed_timestamp=moment,
        context=context,
        severity_text=level.upper(),
        severity_number=_SEVERITIES.get(level, SeverityNumber.INFO),
        body=encodable(message),
        attributes={
            encodable(_NAMES.get(name, f"ncps.{name}")): (
                encodable(value) if isinstance(value, str) else value
            )
            for name, value in rest.items()
            if isinstance(value, str | int | float | bool)
        },
    )


def _nanoseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000) * 1_000_000


def _context(trace_id: str, span_id: str) -> Context:
    """Return a context with these ids; without ids, an empty context that is not the thread's."""
    if not trace_id:
        return Context({"ncps": None})
    found = SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(found), Context())
