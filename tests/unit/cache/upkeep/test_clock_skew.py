"""Skew: a machine with a wrong clock says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.upkeep.clock_skew import Skew
from ncps.errors import Unavailable
from tests.fakes.catalog import MemoryCatalog

NOW = 1_700_000_000.0


class Slow(MemoryCatalog):
    """A catalog with a clock of its own, whose answer takes time.

    :ivar takes_s: from the question to the look at the clock, and as long from there to the answer.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.takes_s = 0.0
        self._clock = clock

    async def time(self) -> datetime:
        self._reading()
        self._clock.advance(self.takes_s)
        told = datetime.fromtimestamp(int(self._clock.seconds() + self.clock_ahead_s), UTC)
        self._clock.advance(self.takes_s)
        return told


class SkewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.catalog = Slow(self.clock)
        self.skew = Skew(self.catalog, self.clock.seconds)
        self.lines: list[LogEvent] = []
        observer: Any = self.lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def look(self) -> str:
        with self.assertRaises(StopIteration):
            self.skew.look().send(None)
        return self.skew.trouble

    def test_clocks_that_agree(self) -> None:
        """Some seconds, and slow answers, are no trouble."""
        for ahead_s, takes_s in ((0.0, 0.0), (5.0, 0.0), (-5.0, 0.0), (0.0, 30.0), (-5.0, 30.0)):
            self.catalog.clock_ahead_s, self.catalog.takes_s = ahead_s, takes_s
            self.assertEqual("", self.look())
        self.assertEqual([], self.lines)

    def test_a_minute_ahead_or_behind(self) -> None:
        """One log line says which clock is wrong and what to do; another reports the end."""
        self.catalog.clock_ahead_s = 60.0
        self.assertIn("60 s behind that of the database", self.look())
        self.assertIn("NTP", self.look())
        self.assertEqual(1, len(self.lines))
        self.catalog.clock_ahead_s = -60.0
        self.assertIn("60 s ahead of", self.look())
        self.catalog.clock_ahead_s = 0.0
        self.assertEqual("", self.look())
        self.assertEqual(2, len(self.lines))

    def test_a_database_that_is_away(self) -> None:
        """If the database is away, nothing new is known about its clock."""
        self.catalog.failing = Unavailable("away")
        self.assertEqual("", self.look())
        self.catalog.failing = None
        self.catalog.clock_ahead_s = 60.0
        trouble = self.look()
        self.catalog.failing = Unavailable("away")
        self.assertEqual(trouble, self.look())
