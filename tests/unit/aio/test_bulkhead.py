"""Bulkhead: a number of slots, a limit of waiters, and a longest wait."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.bulkhead import Bulkhead
from ncps.errors import Busy


class BulkheadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reached: list[str] = []
        self.slots = Bulkhead(
            self.clock, "tables", size=2, queue=3, patience_s=10, reached=self.reached.append
        )

    def ask(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.slots.acquire())

    def fill(self) -> None:
        for _ in range(2):
            self.successResultOf(self.ask())

    def test_free_slots_are_had_at_once(self) -> None:
        """With free slots there is no waiting and no timer."""
        self.assertEqual(self.slots.free, 2)
        self.fill()
        self.assertEqual((self.slots.free, self.clock.getDelayedCalls()), (0, []))

    def test_waiting_is_in_order(self) -> None:
        """The first caller gets the first free slot."""
        self.fill()
        first, second = self.ask(), self.ask()
        self.slots.release()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.slots.release()
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_line_is_bounded(self) -> None:
        """A caller that finds a full queue is refused immediately."""
        self.fill()
        waiting = [self.ask() for _ in range(3)]
        self.failureResultOf(self.ask(), Busy)
        self.assertEqual((self.slots.waiting, self.reached), (3, ["queue"]))
        waiting[1].cancel()
        self.failureResultOf(waiting[1], CancelledError)
        self.assertNoResult(self.ask())

    def test_patience_is_bounded(self) -> None:
        """A caller that has waited too long gets an error, and leaves the queue."""
        self.fill()
        first = self.ask()
        self.clock.advance(5)
        second = self.ask()
        self.clock.advance(5)
        error = self.failureResultOf(first, Busy).value
        self.assertIn("10 s for tables", str(error))
        self.assertEqual(self.reached, ["patience"])
        self.slots.release()
        self.successResultOf(second)
        self.slots.release()
        self.assertEqual((self.slots.free, self.clock.getDelayedCalls()), (1, []))

    def test_slot_is_given_back_however_its_use_ends(self) -> None:
        """An error inside does not lose a slot."""

        async def use() -> None:
            async with self.slots:
                raise ZeroDivisionError

        for _ in range(5):
            self.failureResultOf(Deferred.fromCoroutine(use()), ZeroDivisionError)
        self.assertEqual(self.slots.free, 2)
