"""Two clocks: one that nobody sets, and the time of day.

Pauses, deadlines and expiring memories use the reactor's `seconds`, a clock that nobody sets: if an
operator moves the time of day by an hour, nothing times out and nothing waits for it. Stored and
shown times are the time of day (`wall_of`). `Ages` connects the two: it computes the age of
something that bears a time of day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from twisted.internet.interfaces import IReactorTime

TOLERANCE_S: Final = 2.0
"""A clock that is kept right is moved by less than that at once, or slowly."""

_STEPS: Final = 1000


@runtime_checkable
class TellsTimeOfDay(Protocol):
    """A clock whose `seconds` are not the time of day."""

    def wall(self) -> float:
        """Seconds since 1970."""


def wall_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that tells the time of day, in seconds since 1970.

    For a clock that does not tell the time of day, such as those of Twisted, it is `seconds`.
    """
    return clock.wall if isinstance(clock, TellsTimeOfDay) else clock.seconds


def utc_now(clock: IReactorTime) -> datetime:
    """The time of day as an aware datetime."""
    return datetime.fromtimestamp(wall_of(clock)(), UTC)


class Ages:
    """Says how old a time of day is at least, even if the clock was set forward meanwhile.

    A step of the clock is noticed at the next call and counts from then on. So an age is never said
    to be larger than it is; it may be said to be smaller, until that age has passed once more.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._wall = wall_of(clock)
        self._offset = self._wall() - clock.seconds()
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS)  # when, how far forward

    def before(self, age_s: float) -> datetime:
        """A time of day: what was marked with an earlier one is older than `age_s`, surely."""
        now = self._clock.seconds()
        offset = self._wall() - now
        if offset - self._offset > TOLERANCE_S:
            self._steps.append((now, offset - self._offset))
        self._offset = offset
        ahead = sum(step for at, step in self._steps if now - at < age_s)
        return datetime.fromtimestamp(now + offset - age_s - ahead, UTC)
