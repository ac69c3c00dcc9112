"""The kind of a span of hours of the day."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from ncps.settings.setting import Kind

_SPAN: Final = re.compile(r"(\d{1,2})-(\d{1,2})", re.ASCII)
_LAST: Final = 24


@frozen
class Hours:
    """A span from the start of one hour of the day to the start of another, perhaps over midnight.

    :ivar first: 0 to 24, as is `end`; equal values mean all hours.
    """

    first: int = 0
    end: int = 0

    def has(self, hour: int) -> bool:
        """Whether the span includes an hour of the day, 0 to 23."""
        first, end = self.first % _LAST, self.end % _LAST
        if first == end:
            return True
        return first <= hour < end if first < end else hour >= first or hour < end


def _parse(text: str) -> Hours:
    if not text:
        return Hours()
    match = _SPAN.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > _LAST:
        raise ValueError("should be two hours between 0 and 24, such as 22-6")
    return Hours(int(match[1]), int(match[2]))


def _show(value: object) -> str:
    assert isinstance(value, Hours)
    return "" if value == Hours() else f"{value.first}-{value.end}"


HOURS: Final = Kind(metavar="HOURS", expected="hours such as 22-6", parse=_parse, show=_show)
