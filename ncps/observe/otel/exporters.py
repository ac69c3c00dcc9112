"""The exporter of each signal, as the settings and OpenTelemetry's variables name it.

If our settings name no collector, variables of OpenTelemetry may do so, such as
OTEL_EXPORTER_OTLP_ENDPOINT. If neither names one, traces and metrics go to standard output; the
logs are there already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol

from attrs import frozen

from ncps.aio.authorities import system_file
from ncps.errors import Refused
from ncps.observe import log_queue
from ncps.observe.process_metrics import SIGNALS
from ncps.settings.kinds.telemetry import Header, parse_headers
from ncps.settings.schema.telemetry import OpenTelemetrySettings

TRACES, METRICS, LOGS = SIGNALS
GRPC, HTTP, CONSOLE, NONE = "grpc", "http/protobuf", "console", "none"
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_{}ENDPOINT"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_{}PROTOCOL"
_FILE: Final = "OTEL_EXPORTER_OTLP_{}"
_HEADERS: Final = "OTEL_EXPORTER_OTLP_{}HEADERS"


class Exporter(Protocol):
    """The part of the library's exporters that ncps uses."""

    def export(self, batch: Any, /) -> Any: ...

    def shutdown(self) -> Any: ...


@frozen(kw_only=True)
class Way:
    """The destination of one signal.

    :param protocol: `NONE` to send nothing.
    :param url: of the collector; empty for the collector that the variables name.
    """

    protocol: str
    url: str = ""

    def __str__(self) -> str:
        where = self.url or "the collector of OTEL_EXPORTER_OTLP_ENDPOINT"
        return "standard output" if self.protocol == CONSOLE else f"{where} ({self.protocol})"


def way_of(signal: str, settings: OpenTelemetrySettings, environ: Mapping[str, str]) -> Way:
    """Return the destination of a signal. Raises Refused if a variable is wrong."""
    wanted = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or "otlp"
    if wanted not in {"otlp", CONSOLE, NONE}:
        raise Refused(f"OTEL_{signal.upper()}_EXPORTER should be otlp, console or none")
    if wanted != "otlp":
        return Way(protocol=wanted)
    if settings.grpc_url:
        return Way(protocol=GRPC, url=settings.grpc_url)
    if settings.http_url:
        return Way(protocol=HTTP, url=f"{settings.http_url}/v1/{signal}")
    if _of_signal(_ENDPOINT, signal, environ):
        name = "OTEL_EXPORTER_OTLP_PROTOCOL"
        protocol = _of_signal(_PROTOCOL, signal, environ) or GRPC
        if protocol not in {GRPC, HTTP}:
            raise Refused(f"{name} should be {GRPC} or {HTTP}: http/json is not supported")
        return Way(protocol=protocol)
    return Way(protocol=NONE if signal == LOGS else CONSOLE)


def _of_signal(name: str, signal: str, environ: Mapping[str, str]) -> str:
    """Return the value of a variable for one signal, else for all signals, else an empty text."""
    return environ.get(name.format(f"{signal.upper()}_")) or environ.get(name.format("")) or ""


def exporter(signal: str, way: Way, settings: OpenTelemetrySettings) -> Exporter:
    """Make the exporter of a signal; it connects later.

    Raises Refused if a setting or a variable of OpenTelemetry cannot be used.
    """
    if way.protocol == CONSOLE:
        return Console()
    _see_files(signal, os.environ)
    found = settings.headers or _headers(signal, os.environ)
    headers = {header.name: header.value for header in found} or None
    try:
        more: dict[str, Any] = {"endpoint": way.url or None, "headers": headers}
        if way.protocol == HTTP:
            more["session"] = _session()
        elif way.url:
            more["insecure"] = way.url.startswith("http:")
        if (way.url or _of_signal(_ENDPOINT, signal, os.environ)).startswith("https:"):
            more |= _authorities(signal, way.protocol, os.environ)
        return _class(signal, way.protocol)(**more)
    except Exception as error:  # noqa: BLE001 - the library raises many errors for a wrong variable
        raise Refused(
            f"otel-enabled: cannot make the exporter of {signal}: {str(error)[:200]}: see the"
            " variables OTEL_EXPORTER_OTLP_…"
        ) from None


def _session() -> object:
    """Make the session that carries OTLP over HTTP; gRPC needs none."""
    from ncps.observe.otel.session import BoundedSession  # noqa: PLC0415 - only for HTTP

    return BoundedSession()


def _authorities(signal: str, protocol: str, environ: Mapping[str, str]) -> dict[str, object]:
    """Return the arguments by which an exporter trusts the authorities that ncps trusts.

    There are none if a variable names authorities. The library has a list of its own, without the
    authorities of the operator.
    """
    file = system_file(environ)
    if file is None or _of_signal(_FILE.format("{}CERTIFICATE"), signal, environ):
        return {}
    if protocol == HTTP:
        return {"certificate_file": str(file)}
    own = [
        _of_signal(_FILE.format(f"{{}}{what}"), signal, environ)
        for what in ("CLIENT_KEY", "CLIENT_CERTIFICATE")
    ]
    key, chain = (Path(path).read_bytes() if path else None for path in own)
    from grpc import ssl_channel_credentials  # noqa: PLC0415 - only for gRPC

    return {"credentials": ssl_channel_credentials(file.read_bytes(), key, chain)}


def _see_files(signal: str, environ: Mapping[str, str]) -> None:
    """Raise Refused if a variable names an unreadable file, which the library would ignore."""
    for what in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
        for signals in (f"{signal.upper()}_", ""):
            name = _FILE.format(f"{signals}{what}")
            path = environ.get(name)
            if path and not os.access(path, os.R_OK):
                raise Refused(f"environment {name} should be a file that can be read: {path}")


def _headers(signal: str, environ: Mapping[str, str]) -> tuple[Header, ...]:
    """Read the headers of a variable. Raises Refused, without a value, if they are wrong.

    The library would ignore a wrong header, and log it with its secret value.
    """
    for name in (_HEADERS.format(f"{signal.upper()}_"), _HEADERS.format("")):
        if text := environ.get(name):
            try:
                return parse_headers(text)
            except ValueError as error:
                raise Refused(f"environment {name} {error}") from None
    return ()


def _class(signal: str, protocol: str) -> Callable[..., Exporter]:
    """Import an exporter by the names of signal and protocol, as the library registers it."""
    name = {GRPC: "otlp_proto_grpc", HTTP: "otlp_proto_http"}[protocol]
    (found,) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    made: Callable[..., Exporter] = found.load()
    return made


class Console:
    """An exporter that writes each item as a line of JSON to standard output."""

    def export(self, batch: Any, /) -> bool:
        """Write the items. Raises OSError if that fails."""
        items: Sequence[Any] = batch if isinstance(batch, list | tuple) else (batch,)
        data = "".join(f"{item.to_json(indent=None)}\n" for item in items)
        if not log_queue.say(data):
            view = memoryview(data.encode())
            while view:
                view = view[os.write(1, view) :]
        return True

    def shutdown(self) -> None:
        """Do nothing."""
