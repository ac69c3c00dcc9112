"""Schedules: when a job is due next, by cron or by an interval, also if the clock is set.

Clocks are set, summer time begins and ends, and machines sleep. A missed job runs once, late. If
the clock is set back, a job that has run does not run again at the same time of day. If the clock
is set back by more than a day, it was wrong before, and the earlier runs are forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Protocol

from attrs import frozen
from cronsim import CronSim
from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import utc_now

LOOK_S: Final = 60.0
"""Seconds between two looks at the clock, which may have been set."""


class Schedule(Protocol):
    """The times at which a job is due.

    :ivar set_back_s: seconds by which the clock may be set back without a second run of a job.
    """

    @property
    def set_back_s(self) -> float: ...

    def after(self, moment: datetime) -> datetime:
        """Return the first time after this one, both UTC."""


@frozen
class Every(Schedule):
    """Due every `interval_s` seconds."""

    interval_s: float

    @property
    def set_back_s(self) -> float:
        return 0.0

    def after(self, moment: datetime) -> datetime:
        return moment + timedelta(seconds=self.interval_s)


@frozen
class Cron(Schedule):
    """Due by the five fields of cron, in a time zone.

    This follows cron on Debian. A job in the hour that summer time skips is due at the end of that
    hour. A job in the hour that comes twice is due in the first one. A job of each hour or minute
    is due in both.
    """

    expression: str
    zone: tzinfo

    @property
    def set_back_s(self) -> float:
        return 24 * 3600.0

    def after(self, moment: datetime) -> datetime:
        # The library uses wall clocks: in an hour that comes twice it may return an earlier time.
        return next(due for due in self._from(moment) if due > moment)

    def _from(self, moment: datetime) -> CronTimes:
        return CronTimes(CronSim(self.expression, moment.astimezone(self.zone)))


class CronTimes:
    """The times of a `CronSim`, as UTC."""

    def __init__(self, times: CronSim) -> None:
        self._times = times

    def __iter__(self) -> CronTimes:
        return self

    def __next__(self) -> datetime:
        return next(self._times).astimezone(UTC)


class Appointments:
    """Runs a job when it is due; `tick` and `pause_s` are for a `Ticker`.

    :param first_s: seconds from now until the first run; None for the schedule's first time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        schedule: Schedule,
        job: Callable[[], Awaitable[object]],
        *,
        first_s: float | None = None,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._job = job
        self._latest = utc_now(clock)
        if first_s is None:
            self._due = schedule.after(self._latest)
        else:
            self._due = self._latest + timedelta(seconds=first_s)

    async def tick(self) -> None:
        """Run the job if it is due."""
        now = utc_now(self._clock)
        if (self._latest - now).total_seconds() > self._schedule.set_back_s:
            self._latest = now
            self._due = min(self._due, self._schedule.after(now))
        self._latest = max(self._latest, now)
        if now >= self._due:
            # Count from now: a missed time causes no second run.
            self._due = self._schedule.after(self._latest)
            await self._job()

    def pause_s(self) -> float:
        """Return the seconds to wait until the next tick."""
        return min(LOOK_S, max(0.0, (self._due - utc_now(self._clock)).total_seconds()))
