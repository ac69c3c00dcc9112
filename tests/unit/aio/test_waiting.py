"""Future, Wakeup, sleep and within: each waiter can be cancelled alone."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.waiting import Future, Wakeup, sleep, within
from ncps.errors import NotFound, Unavailable


class FutureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shared: Future[int] = Future()

    def wait(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.shared.wait())

    def test_waiters_before_and_after_all_get_value(self) -> None:
        """Early and late waiters get the result."""
        early = [self.wait(), self.wait()]
        self.assertFalse(self.shared.is_set)
        self.shared.succeed(7)
        self.assertTrue(self.shared.is_set)
        self.assertEqual([7, 7, 7], [self.successResultOf(d) for d in [*early, self.wait()]])

    def test_second_result_is_ignored(self) -> None:
        """Only the first result counts; later ones are ignored."""
        self.shared.succeed(7)
        self.shared.fail(NotFound("late"))
        self.shared.succeed(8)
        self.assertIsNone(self.shared.error)
        self.assertEqual(7, self.successResultOf(self.wait()))

    def test_error_reaches_every_waiter_with_a_short_traceback(self) -> None:
        """Every waiter raises the error, and its traceback does not grow with their number."""
        error = NotFound("gone")
        early = [self.wait() for _ in range(50)]
        self.shared.fail(error)
        self.assertIs(error, self.shared.error)
        for waiter in [*early, self.wait()]:
            self.assertIs(error, self.failureResultOf(waiter, NotFound).value)
        depth, frame = 0, error.__traceback__
        while frame is not None:
            depth, frame = depth + 1, frame.tb_next
        self.assertLess(depth, 10)

    def test_cancelled_waiter_leaves_others_waiting(self) -> None:
        """A waiter that gives up ends no other's wait."""
        first, second = self.wait(), self.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.shared.succeed(7)
        self.assertEqual(7, self.successResultOf(second))

    def test_waiter_cancelled_while_others_are_woken_starves_no_waiter(self) -> None:
        """If the first waiter cancels another one while it is woken, the rest continue."""
        waiters: list[Deferred[int]] = []

        async def first() -> None:
            await self.shared.wait()
            waiters[0].cancel()

        cancelling = Deferred.fromCoroutine(first())
        waiters += [self.wait(), self.wait()]
        self.shared.succeed(7)
        self.successResultOf(cancelling)
        self.failureResultOf(waiters[0], CancelledError)
        self.assertEqual(7, self.successResultOf(waiters[1]))

    def test_waiter_that_fails_starves_no_waiter(self) -> None:
        """An error in one waiter does not reach the others."""

        async def first() -> None:
            await self.shared.wait()
            raise ZeroDivisionError

        failing, second = Deferred.fromCoroutine(first()), self.wait()
        self.shared.succeed(7)
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertEqual(7, self.successResultOf(second))


class WakeupTests(SynchronousTestCase):
    def test_wake_ends_one_wait(self) -> None:
        """`wake` wakes the waiting coroutine; other calls have no effect."""
        wakeup = Wakeup()
        wakeup.wake()
        waiting = Deferred.fromCoroutine(wakeup.wait())
        self.assertNoResult(waiting)
        wakeup.wake()
        self.successResultOf(waiting)
        wakeup.wake()
        self.assertNoResult(Deferred.fromCoroutine(wakeup.wait()))

    def test_cancelled_waiter_can_be_followed_by_another(self) -> None:
        """After a cancelled wait another coroutine can wait."""
        wakeup = Wakeup()
        waiting = Deferred.fromCoroutine(wakeup.wait())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        wakeup.wake()
        again = Deferred.fromCoroutine(wakeup.wait())
        wakeup.wake()
        self.successResultOf(again)


class SleepTests(SynchronousTestCase):
    def test_returns_after_the_time(self) -> None:
        """`sleep` returns after its time; a cancelled one leaves no timer."""
        clock = Clock()
        first = Deferred.fromCoroutine(sleep(clock, 2.0))
        second = Deferred.fromCoroutine(sleep(clock, 2.0))
        clock.advance(1.0)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(first)
        clock.advance(1.0)
        self.successResultOf(first)
        self.assertEqual([], clock.getDelayedCalls())


class WithinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.work: Deferred[int] = Deferred()

    async def job(self) -> int:
        return await self.work

    def within(self, late: str = "") -> Deferred[int]:
        return Deferred.fromCoroutine(within(self.clock, 2.0, self.job(), late))

    def test_result_and_error_in_time_are_those_of_the_work(self) -> None:
        """The result or error of the work is returned, and no timer is left."""
        done = self.within()
        self.work.callback(7)
        self.assertEqual(7, self.successResultOf(done))
        self.work = Deferred()
        failing = self.within("late")
        self.work.errback(NotFound("no"))
        self.failureResultOf(failing, NotFound)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_work_that_is_done_already_needs_no_timer(self) -> None:
        """Work that has ended already needs no timer."""
        self.patch(self.clock, "callLater", lambda *_: self.fail("a timer"))
        self.work.callback(7)
        self.assertEqual(7, self.successResultOf(self.within()))
        self.work = fail(NotFound("no"))
        self.failureResultOf(self.within("late"), NotFound)

    def test_late_work_is_cancelled(self) -> None:
        """Late work is cancelled, and Twisted's TimeoutError is raised."""
        done = self.within()
        self.clock.advance(1.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.failureResultOf(done, DeferredTimeout)
        self.assertTrue(self.work.called)

    def test_late_work_with_a_message_is_unavailable(self) -> None:
        """With a message, late work raises Unavailable."""
        done = self.within("no answer within 2 s")
        self.clock.advance(2.0)
        error = self.failureResultOf(done, Unavailable).value
        self.assertEqual(("no answer within 2 s", True), (str(error), error.timed_out))

    def test_cancelled_waiter_cancels_the_work(self) -> None:
        """Cancelling the waiter cancels the work, and leaves no timer."""
        done = self.within("late")
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(self.work.called)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_deferred_is_work_as_well(self) -> None:
        """A Deferred needs no coroutine around it."""
        done = Deferred.fromCoroutine(within(self.clock, 2.0, self.work))
        self.work.callback(7)
        self.assertEqual(7, self.successResultOf(done))
