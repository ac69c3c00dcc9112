"""Kinds of values for the collector of telemetry, and for the amount sent to it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from ncps.settings.setting import Kind

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}", re.ASCII)
_NAME = re.compile(r"[a-z0-9_.-]+(?<!-bin)", re.ASCII)
"""Names of headers whose values gRPC sends as text."""
_HOST = re.compile(r"[A-Za-z0-9_.:-]+", re.ASCII)
_RATIO = re.compile(r"\d(?:\.\d{1,17})?(?:[eE]-\d{1,3})?", re.ASCII)
_SECURED: Final = {"http": False, "grpc": False, "https": True}
_GRPC_PORT: Final = 4317
_GRPC: Final = "http://HOST:4317, or https://HOST:PORT for TLS"
_HTTP: Final = "http://HOST:4318 or https://HOST:PORT, to which ncps adds /v1/traces etc."
_RATIOS: Final = "a number between 0 and 1, such as 0.05"
_HEADERS: Final = "NAME=VALUE, several separated by commas or lines"
_MOST_HEADERS: Final = 64


def _collector(text: str, expected: str, schemes: frozenset[str]) -> tuple[str, str, str]:
    """Return scheme, host with port, and path of a collector's URL."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"should be {expected}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds credentials, which belong in the file of --otel-headers-file")
    host = parts.hostname or ""
    is_more = parts.query or parts.fragment or not text.isprintable() or " " in text
    if parts.scheme not in schemes or is_more or _HOST.fullmatch(host) is None or port == 0:
        raise ValueError(f"should be {expected}")
    host = f"[{host}]" if ":" in host else host
    if port is None and parts.scheme in {"http", "grpc"} and "grpc" in schemes:
        port = _GRPC_PORT
    return parts.scheme, host if port is None else f"{host}:{port}", parts.path.rstrip("/")


def parse_grpc_url(text: str) -> str:
    """Return the URL of a collector that speaks gRPC; empty for an empty text."""
    if not text:
        return ""
    scheme, place, path = _collector(text, _GRPC, frozenset(_SECURED))
    if path:
        raise ValueError(f"should be {_GRPC}, without a path")
    return f"{'https' if _SECURED[scheme] else 'http'}://{place}"


def parse_http_url(text: str) -> str:
    """Return the URL below which a collector accepts OTLP over HTTP; empty for an empty text."""
    if not text:
        return ""
    scheme, place, path = _collector(text, _HTTP, frozenset({"http", "https"}))
    return f"{scheme}://{place}{path}"


def parse_ratio(text: str) -> float:
    """Read a number from 0 to 1."""
    if _RATIO.fullmatch(text) is None or not 0 <= float(text) <= 1:
        raise ValueError(f"should be {_RATIOS}")
    return float(text)


@frozen
class Header:
    """A header of the requests to a collector."""

    name: str
    value: str = field(repr=False)


def parse_headers(text: str) -> tuple[Header, ...]:
    """Read headers: `name=value`, as in OpenTelemetry, or `name: value`. No error repeats them."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for line in text.split("\n") for piece in _cut(line))):
        match = re.match(r"([^=:]*)[=:](.*)", part)
        name = match[1].strip().lower() if match else ""
        value = unquote(match[2]).strip() if match else ""
        if _TOKEN.fullmatch(name) is None:
            raise ValueError(f"should be {_HEADERS}")
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                "holds a header whose name cannot be sent: it should have letters, digits, '-', '_'"
                " and '.' only, and not end in -bin"
            )
        if not value.isascii() or not value.isprintable():
            raise ValueError("holds a value of a header that is not plain ASCII")
        found[name] = value
    if len(found) > _MOST_HEADERS:
        raise ValueError(f"holds more than {_MOST_HEADERS} headers")
    return tuple(Header(name, value) for name, value in found.items())


def _cut(line: str) -> list[str]:
    """Split a line at its commas, unless it has the form `name: value`, which is one header."""
    name, colon, _ = line.partition(":")
    return [line] if colon and "=" not in name else line.split(",")


GRPC_URL: Final = Kind(metavar="URL", expected=_GRPC, parse=parse_grpc_url)
HTTP_URL: Final = Kind(metavar="URL", expected=_HTTP, parse=parse_http_url)
RATIO: Final = Kind(metavar="N", expected=_RATIOS, parse=parse_ratio, natives=(int, float))
HEADERS: Final = Kind(
    metavar="HEADERS",
    expected=_HEADERS,
    parse=parse_headers,
    show=lambda _: "***",
)
