"""Times when jobs are due: cron, intervals, summer time, and clocks that are set."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.upkeep.schedule import LOOK_S, Appointments, Cron, Every, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class CronTests(SynchronousTestCase):
    def dues(self, expression: str, zone: tzinfo, start: str, count: int) -> list[str]:
        """Return the next times, each found from the one before, by the local clock."""
        moment, found = utc(start), []
        for _ in range(count):
            moment = Cron(expression, zone).after(moment)
            self.assertEqual(moment.tzinfo, UTC)
            found.append(moment.astimezone(zone).strftime("%m-%d %H:%M %z"))
        return found

    def test_a_time_of_day_in_a_zone(self) -> None:
        """Two in the morning is local time in that zone, in winter and in summer."""
        self.assertEqual(
            self.dues("0 2 * * *", BERLIN, "2026-01-10 12:00", 2),
            ["01-11 02:00 +0100", "01-12 02:00 +0100"],
        )
        self.assertEqual(
            self.dues("0 2 * * *", BERLIN, "2026-07-10 12:00", 1), ["07-11 02:00 +0200"]
        )

    def test_the_hour_that_is_skipped(self) -> None:
        """A job of the skipped hour is due once, at its end."""
        self.assertEqual(
            self.dues("30 2 * * *", BERLIN, "2026-03-28 12:00", 2),
            ["03-29 03:00 +0200", "03-30 02:30 +0200"],
        )

    def test_the_hour_that_comes_twice(self) -> None:
        """A job of the doubled hour is due once, looked up from any time in that hour."""
        self.assertEqual(
            self.dues("30 2 * * *", BERLIN, "2026-10-24 12:00", 2),
            ["10-25 02:30 +0200", "10-26 02:30 +0100"],
        )
        for minute in range(120):
            moment = datetime.fromtimestamp(utc("2026-10-25 00:00").timestamp() + 60 * minute, UTC)
            self.assertGreater(Cron("30 2 * * *", BERLIN).after(moment), moment)
        self.assertEqual(
            self.dues("30 2 * * *", BERLIN, "2026-10-25 01:10", 1), ["10-26 02:30 +0100"]
        )

    def test_every_half_hour_goes_on_through_both(self) -> None:
        """A job of each half hour is due each half hour, with or without summer time."""
        for start in ("2026-10-24 23:00", "2026-03-28 23:00"):
            moment = utc(start)
            for _ in range(12):
                due = Cron("*/30 * * * *", BERLIN).after(moment)
                self.assertEqual((due - moment).total_seconds(), 1800)
                moment = due


class AppointmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = utc("2026-06-10 00:00").timestamp()
        self.done: list[str] = []

    async def job(self) -> None:
        self.done.append(datetime.fromtimestamp(self.clock.seconds(), UTC).strftime("%d %H:%M"))

    def made(self, schedule: Schedule, first_s: float | None = None) -> Appointments:
        return Appointments(self.clock, schedule, self.job, first_s=first_s)

    def tick(self, appointments: Appointments, seconds: float = 0.0) -> None:
        """Let the clock advance or be set back, and look at it."""
        self.clock.rightNow += seconds
        self.successResultOf(Deferred.fromCoroutine(appointments.tick()))

    def live(self, appointments: Appointments, seconds: float) -> None:
        """Tick like a ticker."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self.tick(appointments, max(0.001, appointments.pause_s()))

    def test_the_job_is_done_when_it_is_due(self) -> None:
        """Once per due time, on the minute."""
        appointments = self.made(Cron("0 2 * * *", UTC))
        self.assertEqual(appointments.pause_s(), LOOK_S)
        self.live(appointments, 49 * HOUR)
        self.assertEqual(self.done, ["10 02:00", "11 02:00"])

    def test_an_interval(self) -> None:
        """A job is due an interval after its last run, and first at the given time."""
        self.live(self.made(Every(1000.0)), 3500)
        self.assertEqual(self.done, ["10 00:16", "10 00:33", "10 00:50"])
        self.done.clear()
        self.live(self.made(Every(86400.0), first_s=600.0), 3600)
        self.assertEqual(len(self.done), 1)

    def test_a_machine_that_slept(self) -> None:
        """A missed job runs once, late, and not more often."""
        appointments = self.made(Cron("0 * * * *", UTC))
        self.tick(appointments, 10.5 * HOUR)
        self.tick(appointments)
        self.assertEqual(self.done, ["10 10:30"])
        self.live(appointments, HOUR)
        self.assertEqual(self.done, ["10 10:30", "10 11:00"])

    def test_a_clock_set_back_a_little(self) -> None:
        """If the clock is set back to a due time again, the job is not due again."""
        appointments = self.made(Cron("0 2 * * *", UTC))
        self.live(appointments, 2.2 * HOUR)
        self.tick(appointments, -HOUR)
        self.live(appointments, 5 * HOUR)
        self.assertEqual(self.done, ["10 02:00"])
        self.live(appointments, 20 * HOUR)
        self.assertEqual(self.done, ["10 02:00", "11 02:00"])

    def test_a_clock_that_was_far_ahead(self) -> None:
        """A clock found to be a year ahead and set right does not stop the schedule for a year."""
        self.clock.rightNow += 365 * 24 * HOUR
        appointments = self.made(Cron("0 2 * * *", UTC))
        self.live(appointments, 3 * HOUR)
        self.tick(appointments, -365 * 24 * HOUR)
        self.live(appointments, 24 * HOUR)
        self.assertEqual(len(self.done), 2)

    def test_an_interval_on_a_clock_set_back(self) -> None:
        """An interval never becomes longer if the clock is set."""
        appointments = self.made(Every(1000.0))
        self.tick(appointments, 500)
        self.tick(appointments, -20_000)
        self.live(appointments, 1100)
        self.assertEqual(len(self.done), 1)

    def test_a_clock_that_is_set_again_and_again(self) -> None:
        """A clock that is set around the due time does not run the job each time."""
        appointments = self.made(Cron("0 2 * * *", UTC))
        self.live(appointments, 1.9 * HOUR)
        for _ in range(20):
            self.tick(appointments, 0.5 * HOUR)
            self.tick(appointments, -0.5 * HOUR)
        self.assertEqual(self.done, ["10 02:24"])
