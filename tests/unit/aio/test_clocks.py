"""Clocks: a monotonic clock, and the time of day, which operators may set."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.clocks import TOLERANCE_S, Ages, utc_now, wall_of
from tests.fakes.clocks import SetClock

HOUR = 3600.0
DAY = 24 * HOUR


class WallTests(SynchronousTestCase):
    def test_time_of_day_is_the_clocks_own_where_it_has_one(self) -> None:
        """For any other clock, the time of day is its seconds."""
        clock, plain = SetClock(), Clock()
        for each in (clock, plain):
            each.advance(5)
        clock.ahead = 100.0
        self.assertEqual((105.0, 5.0), (wall_of(clock)(), wall_of(plain)()))
        self.assertEqual(105.0, utc_now(clock).timestamp())


class AgesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SetClock()
        self.ages = Ages(self.clock)

    def older(self, marked: float, age: float) -> bool:
        """Return whether a record with this time of day is certainly older than that."""
        return marked < self.ages.before(age).timestamp()

    def test_age_is_the_time_that_passed(self) -> None:
        """Without a step the age is the difference of two times of day."""
        marked = self.clock.wall()
        self.clock.advance(HOUR - 1)
        self.assertFalse(self.older(marked, HOUR))
        self.clock.advance(2)
        self.assertTrue(self.older(marked, HOUR))

    def test_set_forward_nothing_is_older_for_that(self) -> None:
        """A minute stays a minute when an hour is added to the clock, until the hour has passed."""
        marked = self.clock.wall()
        self.clock.advance(60)
        self.clock.ahead += HOUR
        self.assertFalse(self.older(marked, HOUR))
        later = self.clock.wall()
        self.clock.advance(HOUR - 1)
        self.assertFalse(self.older(later, HOUR))
        self.clock.advance(2)
        self.assertTrue(self.older(marked, HOUR))
        self.assertTrue(self.older(later, HOUR))

    def test_older_records_stay_older(self) -> None:
        """A record that was older before the step is older after it."""
        marked = self.clock.wall()
        self.clock.advance(3 * HOUR)
        self.clock.ahead += HOUR
        self.assertTrue(self.older(marked, HOUR))

    def test_set_back_nothing_is_older_for_that(self) -> None:
        """A time an hour in the future becomes old an hour later than it should, not earlier."""
        marked = self.clock.wall()
        self.clock.ahead -= HOUR
        self.clock.advance(2 * HOUR - 1)
        self.assertFalse(self.older(marked, HOUR))
        self.clock.advance(2)
        self.assertTrue(self.older(marked, HOUR))

    def test_back_and_forth(self) -> None:
        """Every step forward counts, also after steps back."""
        marked = self.clock.wall()
        for _ in range(5):
            self.clock.ahead -= DAY
            self.ages.before(HOUR)
            self.clock.ahead += DAY
            self.assertFalse(self.older(marked, HOUR))
        self.clock.advance(6 * DAY)
        self.assertTrue(self.older(marked, HOUR))

    def test_a_clock_that_is_kept_right_is_believed(self) -> None:
        """Steps of a second are ignored."""
        marked = self.clock.wall()
        for _ in range(60):
            self.clock.ahead += TOLERANCE_S / 2
            self.clock.advance(60)
            self.ages.before(HOUR)
        self.clock.advance(1)
        self.assertTrue(self.older(marked, HOUR))
