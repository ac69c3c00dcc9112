"""Keys that are remembered for a while."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.recent import RecentSet
from tests.fakes.clocks import SetClock


class NegativesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.negatives = RecentSet(self.clock, ttl_s=10, max_entries=3)

    def test_remembered_and_forgotten_in_time(self) -> None:
        """An absence is believed for its time, and for not a moment more."""
        self.negatives.add("a")
        self.clock.advance(9.9)
        self.assertIn("a", self.negatives)
        self.clock.advance(0.1)
        self.assertNotIn("a", self.negatives)
        self.assertEqual(0, len(self.negatives))

    def test_time_of_day_does_not_matter(self) -> None:
        """An hour more or less on the clock neither ends an absence nor makes it last."""
        clock = SetClock()
        negatives = RecentSet(clock, ttl_s=10, max_entries=3)
        negatives.add("a")
        for step in (3600.0, -7200.0, 3600.0):
            clock.ahead += step
            self.assertIn("a", negatives)
        clock.ahead -= 3600.0
        clock.advance(10)
        self.assertNotIn("a", negatives)

    def test_taken_back(self) -> None:
        """An upload ends the absence at once; what was never there can be taken back, too."""
        self.negatives.add("a")
        self.negatives.forget("a")
        self.negatives.forget("b")
        self.assertNotIn("a", self.negatives)

    def test_bounded_oldest_first(self) -> None:
        """A million different questions do not fill the memory."""
        for key in "abcad":
            self.negatives.add(key)
        self.assertEqual([True, False, True, True], [key in self.negatives for key in "abcd"])

    def test_may_be_switched_off(self) -> None:
        """With no time or no room nothing is remembered."""
        for ttl_s, max_entries in ((0, 3), (3, 0)):
            negatives = RecentSet(self.clock, ttl_s=ttl_s, max_entries=max_entries)
            negatives.add("a")
            self.assertNotIn("a", negatives)
