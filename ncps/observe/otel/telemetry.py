"""Telemetry: all parts of OpenTelemetry in one process, started and stopped together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from uuid import uuid4

from attrs import frozen
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, Logger, globalLogPublisher

from ncps import __version__
from ncps.aio.threads import Workers
from ncps.aio.waiting import sleep
from ncps.errors import Refused
from ncps.observe.log_levels import selecting
from ncps.observe.metrics import Metrics
from ncps.observe.otel.complaints import keep_complaints
from ncps.observe.otel.exporters import (
    LOGS,
    METRICS,
    NONE,
    TRACES,
    Exporter,
    Way,
    exporter,
    way_of,
)
from ncps.observe.otel.outbox import CLOSING_S, Outbox, OutboxLimits
from ncps.observe.otel.readings import MetricsReading, MetricsSender
from ncps.observe.otel.records import LogSender, LogTap, is_success
from ncps.observe.otel.sdk import sdk_tracer
from ncps.observe.process_metrics import SIGNALS
from ncps.observe.snapshots import Snapshot
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.settings.schema.telemetry import OpenTelemetrySettings

_SAMPLERS: Final = frozenset(
    f"{parent}{name}"
    for parent in ("", "parentbased_")
    for name in ("always_on", "always_off", "traceidratio")
)
_INTERVAL_MS: Final = "60000"
_LEAST_INTERVAL_MS: Final = 100
"""Milliseconds between two readings, at least, since they take time of the reactor's thread."""
_log: Final = Logger(namespace="ncps.observe.otel")


@frozen(kw_only=True)
class Subject:
    """The subject of the telemetry: this process.

    :param facts: attributes of this process, besides those that every program has.
    :param ratio: part of the traces to record; None if OTEL_TRACES_SAMPLER decides.
    :param level: level of the least important events that are sent.
    """

    facts: Mapping[str, str | int]
    ratio: float | None
    level: str


class SpanSender:
    """Sends spans with an exporter."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def send(self, items: list[ReadableSpan]) -> bool:
        """See `Sender`."""
        return is_success(self._exporter.export(items))

    def close(self) -> None:
        """See `Sender`."""
        self._exporter.shutdown()


class Telemetry:
    """Traces, metrics and logs of one process.

    :param reactor: `IReactorFromThreads` and `IReactorTime`.
    :ivar tracer: begins traces; their spans wait until `start`.
    """

    def __init__(
        self,
        reactor: Any,
        settings: OpenTelemetrySettings,
        subject: Subject,
        metrics: Metrics,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        keep_complaints()
        self._reactor = reactor
        self._metrics = metrics
        self._level = subject.level
        self._ways = {signal: way_of(signal, settings, environ) for signal in SIGNALS}
        self._interval_s = _interval_s(environ)
        self._closers: list[Callable[[float], object]] = []
        self._starters: list[Callable[[], object]] = []
        self._pool = Workers(reactor, "telemetry", len(SIGNALS))
        self._tap: ILogObserver | None = None
        self._readings: Outbox[MetricsReading] | None = None
        resource = _resource(subject.facts)
        make = partial(self._outbox, settings, environ)
        self.tracer: Tracer = NO_TRACER
        spans = make(TRACES, SpanSender)
        if spans is not None:
            self.tracer = sdk_tracer(
                resource,
                _sampler(subject.ratio, environ),
                spans.put,
                metrics.process.telemetry_errors.inc,
            )
        self._readings = make(
            METRICS, partial(MetricsSender, resource=resource, since_ns=time.time_ns())
        )
        logs = make(LOGS, partial(LogSender, resource=resource))
        if logs is not None:
            self._tap = selecting(self._level, LogTap(logs.put))

    def _outbox(
        self,
        settings: OpenTelemetrySettings,
        environ: Mapping[str, str],
        signal: str,
        sender: Callable[[Exporter], Any],
    ) -> Outbox[Any] | None:
        """Make the outbox of a signal; None if the signal is not sent."""
        way = self._ways[signal]
        if way.protocol == NONE:
            return None
        lost = self._metrics.process.telemetry_lost(signal).inc
        destination = sender(exporter(signal, way, settings))
        outbox: Outbox[Any] = Outbox(signal, destination, lost, _limits(signal, environ))
        self._starters.append(outbox.start)
        self._closers.append(outbox.close_blocking)
        return outbox

    def start(self) -> None:
        """Begin to send."""
        self._pool.start()
        for start in self._starters:
            start()
        if self._tap is not None:
            globalLogPublisher.addObserver(self._tap)
        _log.info("telemetry goes to {ways}", ways=_described(self._ways))

    async def read_metrics(self) -> None:
        """Send the metrics at each interval, without end; for `Tasks.start`."""
        while self._readings is not None:
            await sleep(self._reactor, self._interval_s)
            self._read()

    def _read(self) -> None:
        if self._readings is not None:
            snapshot = Snapshot.of(self._metrics.registry)
            self._readings.put(MetricsReading(time.time_ns(), snapshot))

    async def stop(self, deadline_s: float) -> None:
        """Send the waiting items, for `deadline_s` seconds at most; the rest is lost."""
        if self._tap is not None:
            globalLogPublisher.removeObserver(self._tap)
        self._read()
        closing = [
            Deferred.fromCoroutine(self._pool.run(close, deadline_s)) for close in self._closers
        ]
        await gatherResults(closing)
        await self._pool.stop(CLOSING_S)


def _described(ways: Mapping[str, Way]) -> str:
    """Name the destination of each signal."""
    described = [f"{signal} to {way}" for signal, way in ways.items() if way.protocol != NONE]
    return ", ".join(described) or "nowhere"


def _resource(facts: Mapping[str, str | int]) -> Resource:
    """Describe this process; OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create(
        {
            "service.version": __version__,
            "service.instance.id": str(uuid4()),
            "process.pid": os.getpid(),
            **facts,
        }
    )


def _sampler(ratio: float | None, environ: Mapping[str, str]) -> Sampler | None:
    """Make the sampler; None if a variable names it. Raises Refused if the variable is wrong."""
    if ratio is not None:
        return ParentBasedTraceIdRatio(ratio)
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if name and name not in _SAMPLERS:
        raise Refused(f"OTEL_TRACES_SAMPLER should be one of {', '.join(sorted(_SAMPLERS))}")
    if name.endswith("ratio"):
        argument = _number(environ, "OTEL_TRACES_SAMPLER_ARG", "1")
        if argument > 1:
            raise Refused("OTEL_TRACES_SAMPLER_ARG should be a number between 0 and 1")
    return None


def _limits(signal: str, environ: Mapping[str, str]) -> OutboxLimits:
    """Return the limits of an outbox, as OpenTelemetry's variables set them."""
    if signal == METRICS:
        return OutboxLimits(size=4, batch=1)
    prefix = "OTEL_BSP_" if signal == TRACES else "OTEL_BLRP_"
    size = int(_number(environ, f"{prefix}MAX_QUEUE_SIZE", "2048"))
    batch = int(_number(environ, f"{prefix}MAX_EXPORT_BATCH_SIZE", "512"))
    delay_ms = _number(environ, f"{prefix}SCHEDULE_DELAY", "5000" if signal == TRACES else "1000")
    size = max(1, size)
    return OutboxLimits(size=size, batch=min(max(1, batch), size), delay_s=delay_ms / 1000)


def _interval_s(environ: Mapping[str, str]) -> float:
    """Return the seconds between two readings. Raises Refused if they are invalid or too few."""
    name = "OTEL_METRIC_EXPORT_INTERVAL"
    interval_ms = _number(environ, name, _INTERVAL_MS)
    if interval_ms < _LEAST_INTERVAL_MS:
        raise Refused(f"environment {name} should be {_LEAST_INTERVAL_MS} (milliseconds) or more")
    return interval_ms / 1000


def _number(environ: Mapping[str, str], name: str, default: str) -> float:
    """Read a number of 0 or more from a variable. Raises Refused if it has another value."""
    text = environ.get(name, "").strip() or default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise Refused(f"environment {name} should be a number of 0 or more")
    return value
