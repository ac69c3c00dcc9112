"""Sharing: two catalogs over one store notice each other."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.upkeep.sharing import CALM, NAME, Sharing
from ncps.errors import Unavailable
from tests.fakes.stores import MemoryConfigStore


class SharingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.config = MemoryConfigStore()
        self.here, self.there = (Sharing(self.config, name) for name in ("a of x", "a of y"))
        self.lines: list[LogEvent] = []
        observer: Any = self.lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def look(self, *those: Sharing) -> None:
        for one in those:
            with self.assertRaises(StopIteration):
                one.look().send(None)

    @property
    def errors(self) -> list[LogEvent]:
        return [line for line in self.lines if line["log_level"] is LogLevel.error]

    def test_alone(self) -> None:
        """One catalog is no trouble, also with many processes."""
        worker = Sharing(self.config, "a of x")
        for _ in range(5):
            self.look(self.here, worker)
        self.assertEqual(("", ""), (self.here.trouble, worker.trouble))
        self.assertEqual([], self.lines)

    def test_two(self) -> None:
        """Each reports the other: once in the log, and in readiness while it lasts."""
        for _ in range(5):
            self.look(self.here, self.there)
        self.assertIn("with a of y", self.here.trouble)
        self.assertIn("with a of x", self.there.trouble)
        self.assertIn("cache-database-url", self.here.trouble)
        self.assertEqual(2, len(self.errors))

    def test_one_that_looks_more_often(self) -> None:
        """The trouble is not over while the other one has only not come again yet."""
        self.look(self.here, self.there, self.here)
        for _ in range(3):
            self.look(*[self.here] * (CALM - 1), self.there)
            self.assertNotEqual("", self.here.trouble)

    def test_the_other_leaves(self) -> None:
        """After that the trouble is over."""
        self.look(self.here, self.there, self.here)
        self.assertNotEqual("", self.here.trouble)
        self.look(*[self.here] * CALM)
        self.assertEqual("", self.here.trouble)
        self.assertIn("one database again", self.lines[-1]["log_format"])

    def test_a_new_catalog(self) -> None:
        """A process that takes a store over logs the former catalog; that is no trouble."""
        self.look(self.here)
        self.look(self.there, self.there)
        self.assertEqual("", self.there.trouble)
        self.assertEqual(["a of x"], [line["other"] for line in self.lines])

    def test_store_that_is_away(self) -> None:
        """Then it is unknown whether there is another catalog."""
        self.config.failing = Unavailable("away")
        self.look(self.here, self.here)
        self.assertEqual("", self.here.trouble)
        self.config.failing = None
        self.look(self.here, self.there, self.here)
        self.config.failing = Unavailable("away")
        self.look(*[self.here] * CALM)
        self.assertNotEqual("", self.here.trouble)

    def test_objects_in_the_store_may_be_anything(self) -> None:
        """Only its printable characters get into the log."""
        self.config.values[NAME] = b"\xff\n\x1b[31m" + b"x" * 100_000
        self.look(self.here)
        self.assertEqual(["\ufffd??[31m" + "x" * 293], [line["other"] for line in self.lines])
