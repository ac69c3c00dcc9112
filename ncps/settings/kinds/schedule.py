"""Kinds of values for the size of the store and for the times of its eviction."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from attrs import frozen
from cronsim import CronSim, CronSimError

from ncps.errors import Malformed
from ncps.settings.kinds.values import parse_duration, parse_size, show_size
from ncps.settings.setting import Kind

LOCAL: Final = "Local"
_EXPECTED: Final = (
    "five fields of cron such as 0 2 * * *, @every and a duration, @hourly, @daily, @weekly,"
    " @monthly or @yearly"
)
_WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(\S+)\s+", re.ASCII)
_SHORTEST_S: Final = 1.0


@frozen(kw_only=True)
class ScheduleSetting:
    """The times at which something is due.

    :ivar text: as it was given; empty for never.
    :ivar cron: five fields; empty if it is due every `every_s` seconds.
    :ivar zone: the zone that the text itself names; empty if it names none.
    """

    text: str = ""
    cron: str = ""
    every_s: float = 0.0
    zone: str = ""

    def __bool__(self) -> bool:
        return bool(self.text)


def parse_schedule(text: str) -> ScheduleSetting:
    """Read a schedule as the Go program does: cron or a word, after an optional time zone."""
    zone = ""
    rest = text.strip()
    if match := _ZONE.match(rest):
        zone, rest = parse_zone(match[1]), rest[match.end() :]
    if not rest:
        return ScheduleSetting()
    if rest.startswith("@every "):
        every_s = parse_duration(rest.removeprefix("@every ").strip())
        if every_s < _SHORTEST_S:
            raise ValueError("should not be more often than @every 1s")
        return ScheduleSetting(text=text, every_s=every_s, zone=zone)
    cron = _WORDS.get(rest.lower(), rest.replace("?", "*"))
    try:
        check_cron(cron)
    except Malformed as error:
        raise ValueError(f"should be {_EXPECTED}: {error}") from error
    return ScheduleSetting(text=text, cron=cron, zone=zone)


def check_cron(expression: str) -> None:
    """Check five fields of cron. Raises Malformed if they are wrong or name no future time."""
    if len(expression.split()) != 5:
        raise Malformed("does not have five fields")
    try:
        next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise Malformed(str(error)) from error
    except StopIteration:
        raise Malformed("names a time that never comes") from None


def parse_zone(text: str) -> str:
    """Accept the name of a time zone that this machine knows, or Local."""
    if text in {"", LOCAL}:
        return LOCAL
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            "should be Local, UTC or a time zone that this machine knows, such as Europe/Berlin"
        ) from None
    return text


def _parse_max_size(text: str) -> int:
    return parse_size(text) if text else 0


def _show_max_size(value: object) -> str:
    return show_size(value) if value else ""


def _show_schedule(value: object) -> str:
    assert isinstance(value, ScheduleSetting)
    return value.text


MAX_SIZE: Final = Kind(
    metavar="SIZE",
    expected="a size such as 512M, 100G or 2T",
    parse=_parse_max_size,
    show=_show_max_size,
    suffix="_bytes",
)
SCHEDULE: Final = Kind(
    metavar="CRON", expected=_EXPECTED, parse=parse_schedule, show=_show_schedule
)
ZONE: Final = Kind(metavar="ZONE", expected="the name of a time zone", parse=parse_zone)
