"""Two clocks: a monotonic one, and the time of day.

Pauses, deadlines and expiring caches use the reactor's `seconds`, a monotonic clock: if an operator
moves the time of day by an hour, nothing times out and nothing waits longer. Stored and shown times
are the time of day (`wall_of`). `Ages` connects the two: it computes the age of a record that has a
time of day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

TOLERANCE_S: Final = 2.0
"""A time service moves the clock by less than this in one step, or slowly."""

_STEPS: Final = 1000


def wall_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that returns the time of day, in seconds since 1970.

    It is the method `wall` of a clock that has one (`ncps.aio.epoll.LeanReactor`), else `seconds`.
    """
    wall: Any = getattr(clock, "wall", None)
    return clock.seconds if wall is None else wall


def utc_now(clock: IReactorTime) -> datetime:
    """Return the time of day as an aware datetime."""
    return datetime.fromtimestamp(wall_of(clock)(), UTC)


class Ages:
    """The least age of a time of day, also if somebody has set the clock forward since.

    A step of the clock is noticed at the next call and counts from then on. So the computed age is
    never larger than the true age. It may be smaller until that age has passed once more.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._wall = wall_of(clock)
        self._offset = self._wall() - clock.seconds()
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS)  # when, how far forward

    def before(self, age_s: float) -> datetime:
        """Return a time of day; a record with an earlier one is certainly older than `age_s`."""
        now = self._clock.seconds()
        offset = self._wall() - now
        if offset - self._offset > TOLERANCE_S:
            self._steps.append((now, offset - self._offset))
        self._offset = offset
        ahead = sum(step for at, step in self._steps if now - at < age_s)
        return datetime.fromtimestamp(now + offset - age_s - ahead, UTC)
