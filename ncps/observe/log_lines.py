"""Lines of a log, in the two shapes they have: for people, and as JSON.

What `logs` does to any event of `twisted.logger`, and the access log to its own records, which
are too many for an event each.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

quoted = json.encoder.encode_basestring_ascii
"""Write a string as JSON."""


class Batch(Protocol):
    """Many lines that come as one event, whose field `log_batch` it is.

    Its text is the messages, one to a line, for observers that are not ours.
    """

    def json_lines(self, last: str = "}") -> str:
        """Return a line of JSON for each, every one with its end; `last` closes the objects."""

    def human_lines(self, prefix: str) -> str:
        """Return a line for people for each, likewise; `prefix` is put in front of each."""


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(moment: object) -> str:
    """Write a time as RFC 3339 has it: the second is written once for all its events.

    :param moment: seconds since the epoch; anything else is the epoch itself.
    """
    try:
        if isinstance(moment, int | float):
            seconds, micro = divmod(round(moment * 1_000_000), 1_000_000)
            return f"{_second(seconds)}.{micro // 1000:03d}Z"
    except (ValueError, OverflowError, OSError):
        pass
    return "1970-01-01T00:00:00.000Z"


@lru_cache(maxsize=8)
def _local_second(seconds: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def human_head(moment: object, level: str) -> str:
    """Write what a line for people begins with: local time and level."""
    try:
        local = _local_second(int(moment) if isinstance(moment, int | float) else 0)
    except (ValueError, OverflowError, OSError):
        local = _local_second(0)
    return f"{local} {level.upper():<5}"


def harmless(text: str) -> str:
    """Return the text without anything that could end a line or steer a terminal."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
