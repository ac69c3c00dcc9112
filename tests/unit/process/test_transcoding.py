"""The process that transcodes keeps to its share of the processors."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.process.transcoding import ProcessorShare


class ProcessorShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.used = self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pace(self, share: float) -> ProcessorShare:
        return ProcessorShare(
            share, used=lambda: self.used - 100.0, now=lambda: self.now, sleep=self.sleep
        )

    def test_share(self) -> None:
        """After each piece the process has used at most its share since the start."""
        pace = self.pace(0.25)
        for _ in pace.keep(iter([b"a", b"b", b"c"])):
            self.used += 2.0  # two threads that work for a second
            self.now += 1.0
        self.assertEqual(100.0 + 24.0, self.now)

    def test_waiting_counts(self) -> None:
        """Time that the process waits for its input counts as time without work."""
        pace = self.pace(0.5)
        for _ in pace.keep(iter([b"a"])):
            self.used += 1.0
            self.now += 10.0
        self.assertEqual(110.0, self.now)

    def test_old_waiting_does_not_count(self) -> None:
        """After an hour of waiting the process may make up for only one minute."""
        pace = self.pace(0.5)
        for piece in pace.keep(iter([b"idle", b"busy"])):
            if piece == b"idle":
                self.now += 3600.0
            else:
                self.used += 50.0
        self.assertEqual(100.0 + 3600.0 + 40.0, self.now)

    def test_no_bound(self) -> None:
        """Without a bound the process never sleeps."""
        for _ in self.pace(0.0).keep(iter([b"a"])):
            self.used += 50.0
        self.assertEqual(100.0, self.now)

    def test_pieces(self) -> None:
        """All pieces are passed on."""
        self.assertEqual([b"a", b"b"], list(self.pace(1.0).keep(iter([b"a", b"b"]))))
