"""Whether clients are slower than the network."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.nar.readers import FORGOTTEN_S, ReaderSpeed


class ReaderSpeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_slow(self) -> None:
        """Clients are slow if their windows are closed for half of the sending time."""
        readers = ReaderSpeed(self.clock)
        self.assertFalse(readers.are_slow)
        readers.note(10.0, 4.9)
        self.assertFalse(readers.are_slow)
        readers.note(10.0, 5.5)
        self.assertTrue(readers.are_slow)

    def test_others_come(self) -> None:
        """A hundred answers weigh more than all before them."""
        readers = ReaderSpeed(self.clock)
        for _ in range(1000):
            readers.note(1.0, 1.0)
        self.assertTrue(readers.are_slow)
        for _ in range(100):
            readers.note(1.0, 0.0)
        self.assertFalse(readers.are_slow)

    def test_one_client_that_stops(self) -> None:
        """A client that reads nothing for an hour does not outweigh twenty others."""
        readers = ReaderSpeed(self.clock)
        readers.note(3600.0, 3600.0)
        for _ in range(20):
            readers.note(5.0, 0.0)
        self.assertFalse(readers.are_slow)

    def test_a_day_without_answers(self) -> None:
        """Old answers say nothing about the clients of today."""
        readers = ReaderSpeed(self.clock)
        for _ in range(20):
            readers.note(10.0, 10.0)
        self.clock.advance(FORGOTTEN_S)
        self.assertTrue(readers.are_slow)
        self.clock.advance(1)
        self.assertFalse(readers.are_slow)
        readers.note(1.0, 0.4)
        self.assertFalse(readers.are_slow)
        readers.note(1.0, 0.7)
        self.assertTrue(readers.are_slow)
