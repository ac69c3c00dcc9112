"""Lines of a log, in two forms: for people, and as JSON.

`logs` makes them from the events of `twisted.logger`. The access log makes them from its own
records, which are too many for one event each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol, TextIO

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

quoted = json.encoder.encode_basestring_ascii
"""Write a string as JSON."""


Paint = Callable[[str, str], str]
"""Colours a text for a level, or for a class of status such as `5xx`."""

_COLOURS: Final[Mapping[str, str]] = {
    "debug": "2",
    "warn": "33",
    "4xx": "33",
    "error": "31",
    "5xx": "31",
    "fatal": "1;31",
}


def plain(text: str, _kind: str) -> str:
    """Return the text without a colour."""
    return text


def painted(text: str, kind: str) -> str:
    """Return the text with the escape sequences of a colour."""
    colour = _COLOURS.get(kind)
    return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"


def paint_for(stream: TextIO, environ: Mapping[str, str]) -> Paint:
    """Choose whether lines for people have colours.

    NO_COLOR forbids colours, and FORCE_COLOR demands them. Otherwise only a terminal whose TERM is
    not `dumb` gets colours.
    """
    forced = environ.get("FORCE_COLOR", "")
    if environ.get("NO_COLOR") or forced == "0":
        return plain
    if forced:
        return painted
    try:
        return painted if stream.isatty() and environ.get("TERM") != "dumb" else plain
    except (ValueError, AttributeError):  # the stream is closed, or none
        return plain


class Batch(Protocol):
    """Many lines in one event, as its field `log_batch`.

    `str()` of it has one message a line, for observers of other programs.
    """

    def json_lines(self, last: str = "}") -> str:
        """Return the lines as JSON, each with its end; `last` closes each object."""

    def human_lines(self, prefix: str, paint: Paint) -> str:
        """Return the lines for people, each with its end and with `prefix` in front."""


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(moment: object) -> str:
    """Write a time as in RFC 3339; the text of a second is cached.

    :param moment: seconds since the epoch; any other value gives the epoch itself.
    """
    try:
        if isinstance(moment, int | float):
            seconds, micro = divmod(round(moment * 1_000_000), 1_000_000)
            return f"{_second(seconds)}.{micro // 1000:03d}Z"
    except (ValueError, OverflowError, OSError):
        pass
    return "1970-01-01T00:00:00.000Z"


@lru_cache(maxsize=16)
def _local_head(seconds: int, level: str, paint: Paint) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    local = moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{local} {paint(f'{level.upper():<5}', level)}"


def human_head(moment: object, level: str, paint: Paint = plain) -> str:
    """Write the beginning of a line for people: local time and level."""
    try:
        return _local_head(int(moment) if isinstance(moment, int | float) else 0, level, paint)
    except (ValueError, OverflowError, OSError):
        return _local_head(0, level, paint)


def encodable(text: str) -> str:
    """Return the text with bytes that are not UTF-8, as names of files may have, escaped.

    With one such text in a batch, an exporter loses the whole batch.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def harmless(text: str) -> str:
    """Return the text with characters escaped that end a line or control a terminal."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
