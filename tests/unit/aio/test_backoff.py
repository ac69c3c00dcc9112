"""Tests of pauses that grow."""

from __future__ import annotations

from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.backoff import EXACT, Backoff


class BackoffTests(SynchronousTestCase):
    def test_pauses_double_up_to_the_limit(self) -> None:
        """Each series begins with the first pause."""
        backoff = Backoff(first_s=1.0, longest_s=5.0, jitter=EXACT)
        for _ in range(2):
            self.assertEqual([1.0, 2.0, 4.0, 5.0, 5.0], list(islice(backoff.pauses(), 5)))

    def test_a_first_pause_beyond_the_limit(self) -> None:
        """The limit holds for the first pause as well."""
        backoff = Backoff(first_s=9.0, longest_s=5.0, jitter=EXACT)
        self.assertEqual([5.0, 5.0], list(islice(backoff.pauses(), 2)))

    def test_jitter_shortens_by_half_at_most(self) -> None:
        """Processes that began to wait together ask at different times, and none asks late."""
        backoff = Backoff(first_s=1.0, longest_s=4.0)
        seen = [list(islice(backoff.pauses(), 4)) for _ in range(50)]
        for pauses in seen:
            for pause, most in zip(pauses, (1, 2, 4, 4), strict=True):
                self.assertTrue(most / 2 <= pause <= most)
        self.assertGreater(len({pauses[0] for pauses in seen}), 1)
