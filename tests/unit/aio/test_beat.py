"""Beat: waiters are woken together."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.beat import PER_TURN, Beat


class BeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.beat = Beat(self.clock, 2.0, 5.0, 100)

    def wait(self, weight: int = 1) -> Deferred[None]:
        return Deferred.fromCoroutine(self.beat.wait(weight))

    def test_all_wake_together(self) -> None:
        """They wait until no further one has come for the length of the pause."""
        first = self.wait()
        self.clock.advance(1.5)
        second = self.wait()
        self.clock.advance(1.9)
        self.assertEqual((False, False), (first.called, second.called))
        self.clock.advance(0.1)
        self.assertEqual((True, True), (first.called, second.called))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_others_delay_the_first_one_for_a_limited_time(self) -> None:
        """Waiters that come again and again hold up nobody for longer."""
        first = self.wait()
        for _ in range(4):
            self.clock.advance(1.0)
            self.wait()
        self.clock.advance(0.9)
        self.assertFalse(first.called)
        self.clock.advance(0.1)
        self.assertTrue(first.called)

    def test_many_wake_in_several_turns(self) -> None:
        """Their work must not fill one turn; those that come in between do not delay them."""
        waiting = [self.wait() for _ in range(PER_TURN + 5)]
        late: list[Deferred[None]] = []

        def next_turn(_: None) -> None:
            self.assertEqual(PER_TURN, sum(waiter.called for waiter in waiting))
            late.append(self.wait())

        waiting[PER_TURN - 1].addCallback(lambda _: self.clock.callLater(0, next_turn, None))
        self.clock.advance(2)
        self.assertEqual([True] * (PER_TURN + 6), [each.called for each in [*waiting, *late]])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_enough_weight_ends_the_pause(self) -> None:
        """All wake in the next turn, and the next waiter begins with no weight."""
        first, second = self.wait(60), self.wait(40)
        self.assertEqual((False, False), (first.called, second.called))
        self.clock.advance(0)
        self.assertEqual((True, True), (first.called, second.called))
        third = self.wait(60)
        self.clock.advance(0)
        self.assertFalse(third.called)

    def test_an_urgent_waiter_ends_the_pause_for_all(self) -> None:
        """They wait for one pause more, at most, although others come."""
        first = self.wait()
        self.clock.advance(1.0)
        urgent = Deferred.fromCoroutine(self.beat.wait(1, is_urgent=True))
        self.clock.advance(1.5)
        last = self.wait()
        self.clock.advance(0.5)
        self.assertEqual([True] * 3, [each.called for each in (first, urgent, last)])

    def test_a_waiter_becomes_urgent(self) -> None:
        """The same; without waiters it changes nothing."""
        self.beat.hurry()
        first = self.wait()
        self.clock.advance(1.0)
        self.beat.hurry()
        self.clock.advance(0.9)
        self.wait()
        self.clock.advance(1.1)
        self.assertTrue(first.called)
        self.assertEqual([], self.clock.getDelayedCalls())
        second = self.wait()
        self.clock.advance(1.9)
        self.wait()
        self.clock.advance(1.9)
        self.assertFalse(second.called)

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

    def test_no_pause(self) -> None:
        """Without a pause there is no waiting."""
        self.beat.pause_s = 0
        self.successResultOf(self.wait())
