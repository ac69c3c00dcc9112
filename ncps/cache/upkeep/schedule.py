"""Schedules: when a job is due next, by cron or by an interval, also if the clock is set.

Clocks are set, summer time begins and ends, machines sleep. An appointment that was missed is kept
once, late. If the clock is set back and comes to an appointment again, it is not kept again. If the
clock is set back by more than a day, it was wrong before, and its earlier times are forgotten.
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
"""How often the clock is looked at: it may have been set."""


class Schedule(Protocol):
    """When a job is due.

    :ivar set_back_s: how far the clock may be set back without a job being due twice for it.
    """

    @property
    def set_back_s(self) -> float: ...

    def after(self, moment: datetime) -> datetime:
        """The first time after this one, both UTC."""


@frozen
class Every(Schedule):
    """Again and again after `interval_s` seconds."""

    interval_s: float

    @property
    def set_back_s(self) -> float:
        return 0.0

    def after(self, moment: datetime) -> datetime:
        return moment + timedelta(seconds=self.interval_s)


@frozen
class Cron(Schedule):
    """By the five fields of cron, in a time zone.

    As cron on Debian does, what is due in the hour that summer time skips is due at its end, and
    what is due in the hour that comes twice is due in the first; "every" hour or minute goes on.
    """

    expression: str
    zone: tzinfo

    @property
    def set_back_s(self) -> float:
        return 24 * 3600.0

    def after(self, moment: datetime) -> datetime:
        # The library goes by wall clocks: in an hour that comes twice it may look back.
        return next(due for due in self._from(moment) if due > moment)

    def _from(self, moment: datetime) -> CronTimes:
        return CronTimes(CronSim(self.expression, moment.astimezone(self.zone)))


class CronTimes:
    """The times that a `CronSim` gives, as UTC."""

    def __init__(self, times: CronSim) -> None:
        self._times = times

    def __iter__(self) -> CronTimes:
        return self

    def __next__(self) -> datetime:
        return next(self._times).astimezone(UTC)


class Appointments:
    """Has a job done when it is due; `tick` and `pause_s` are for a `Ticker`.

    :param first_s: seconds from now until it is due first; None for the schedule's first time.
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
        """Do the job if it is due."""
        now = utc_now(self._clock)
        if (self._latest - now).total_seconds() > self._schedule.set_back_s:
            self._latest = now
            self._due = min(self._due, self._schedule.after(now))
        self._latest = max(self._latest, now)
        if now >= self._due:
            # Count from now: appointments that were missed are not made up for.
            self._due = self._schedule.after(self._latest)
            await self._job()

    def pause_s(self) -> float:
        """How long to wait until the next tick."""
        return min(LOOK_S, max(0.0, (self._due - utc_now(self._clock)).total_seconds()))
