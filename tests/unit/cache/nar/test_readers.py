"""Whether clients are slower than the network."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.nar.readers import ReaderSpeed


class ReaderSpeedTests(SynchronousTestCase):
    def test_slow(self) -> None:
        """Clients are slow if their windows are closed for half of the sending time."""
        readers = ReaderSpeed()
        self.assertFalse(readers.are_slow)
        readers.note(10.0, 4.9)
        self.assertFalse(readers.are_slow)
        readers.note(10.0, 5.5)
        self.assertTrue(readers.are_slow)

    def test_others_come(self) -> None:
        """A hundred answers weigh more than all before them."""
        readers = ReaderSpeed()
        for _ in range(1000):
            readers.note(1.0, 1.0)
        self.assertTrue(readers.are_slow)
        for _ in range(100):
            readers.note(1.0, 0.0)
        self.assertFalse(readers.are_slow)

    def test_one_client_that_stops(self) -> None:
        """A client that reads nothing for an hour does not outweigh twenty others."""
        readers = ReaderSpeed()
        readers.note(3600.0, 3600.0)
        for _ in range(20):
            readers.note(5.0, 0.0)
        self.assertFalse(readers.are_slow)
