"""Ending: how long running work may continue at the end."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.ending import AFTERMATH_S, Ending


class EndingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ending = Ending(self.clock, delay_s=5.0, drain_s=30.0)
        self.ending.begin()

    def pause(self, seconds: float) -> Deferred[None]:
        return Deferred.fromCoroutine(self.ending.pause(seconds))

    def test_delay_and_drain_add_up(self) -> None:
        """Running work has the drain time after the delay, and then 0 seconds, never less."""
        self.assertEqual(35.0, self.ending.left_s)
        self.clock.advance(40.0)
        self.assertEqual(0.0, self.ending.left_s)

    def test_a_pause_ends_at_the_deadline(self) -> None:
        """A pause takes its seconds, but not longer than the deadline."""
        pause = self.pause(5.0)
        self.clock.advance(4.9)
        self.assertNoResult(pause)
        self.clock.advance(0.1)
        self.successResultOf(pause)
        pause = self.pause(1000.0)
        self.clock.advance(30.0)
        self.successResultOf(pause)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_cut_ends_all_waits(self) -> None:
        """A cut ends present and later pauses, and calls each registered function once."""
        told: list[str] = []
        self.ending.on_cut(lambda: told.append("before"))
        pause = self.pause(5.0)
        self.ending.cut()
        self.ending.cut()
        self.successResultOf(pause)
        self.assertEqual(0.0, self.ending.left_s)
        self.assertLess(self.ending.aftermath_s, AFTERMATH_S)
        self.ending.on_cut(lambda: told.append("after"))
        self.assertEqual(["before", "after"], told)
        later = self.pause(5.0)
        self.clock.advance(0)
        self.successResultOf(later)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_pause_that_is_cancelled_leaves_nothing(self) -> None:
        """A pause that is over does not react to a cut."""
        pause = self.pause(5.0)
        pause.addErrback(lambda _: None)
        pause.cancel()
        self.ending.cut()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_hurry_shortens(self) -> None:
        """`hurry` removes the delay, and never adds time."""
        self.ending.hurry(1.0)
        self.assertEqual(1.0, self.ending.left_s)
        self.ending.hurry(100.0)
        self.assertEqual(1.0, self.ending.left_s)
        fresh = Ending(self.clock, delay_s=5.0, drain_s=30.0)
        fresh.hurry(1.0)
        fresh.begin()
        self.assertEqual(1.0, fresh.left_s)
