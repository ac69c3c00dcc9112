"""Beat: waiters are woken together."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.beat import Beat


class BeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.beat = Beat(self.clock, 2.0)

    def wait(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.beat.wait())

    def test_all_wake_together(self) -> None:
        """The first waiter waits for the whole interval, later ones for the rest of it."""
        first = self.wait()
        self.clock.advance(1.5)
        second = self.wait()
        self.clock.advance(0.4)
        self.assertEqual((False, False), (first.called, second.called))
        self.clock.advance(0.1)
        self.assertEqual((True, True), (first.called, second.called))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_the_next_one_begins_again(self) -> None:
        """A waiter that comes after a beat waits for another one."""
        self.wait()
        self.clock.advance(2)
        later = self.wait()
        self.assertNoResult(later)
        self.clock.advance(2)
        self.successResultOf(later)

    def test_a_waiter_that_leaves_is_alone(self) -> None:
        """Cancelling one waiter does not affect the others."""
        leaving, staying = self.wait(), self.wait()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.clock.advance(2)
        self.successResultOf(staying)

    def test_no_interval(self) -> None:
        """Without an interval there is no waiting."""
        self.beat.interval_s = 0
        self.successResultOf(self.wait())
