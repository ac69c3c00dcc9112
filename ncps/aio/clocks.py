"""Two clocks, which are not to be confused.

What waits, what is late and what is remembered for a while goes by the reactor's `seconds`, which
is a clock that nobody sets: an hour that is added to the time of day makes nothing time out, and
one that is taken back makes nothing wait for it. What is written down for later, and what is told,
goes by the time of day (`wall_of`). Between the two stands `Ages`: how old something is that bears
the time of day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from twisted.internet.interfaces import IReactorTime

TOLERANCE_S: Final = 2.0
"""Clocks that are kept right are moved by less than that at once, or slowly."""

_STEPS: Final = 1000


@runtime_checkable
class TellsTimeOfDay(Protocol):
    """A clock whose `seconds` are not the time of day."""

    def wall(self) -> float:
        """Seconds since 1970."""


def wall_of(clock: IReactorTime) -> Callable[[], float]:
    """What tells the time of day, in seconds since 1970.

    It is the clock itself where that knows no better, as those of Twisted.
    """
    return clock.wall if isinstance(clock, TellsTimeOfDay) else clock.seconds


def utc_now(clock: IReactorTime) -> datetime:
    """The time of day as an aware datetime."""
    return datetime.fromtimestamp(wall_of(clock)(), UTC)


class Ages:
    """How old what bears the time of day is at least, even if that was set forward meanwhile.

    A step is noticed when somebody asks, so it counts from then on: ages are never overrated for
    it, and underrated at most until the age that is asked for has passed.
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
