"""SingleFlight, Future and Wakeup: one job per key, each waiter can be cancelled alone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import Future, SingleFlight, Wakeup
from ncps.errors import NotFound, Unavailable


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shared: Future[int] = Future()

    def wait(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.shared.wait())

    def test_waiters_before_and_after_all_get_value(self) -> None:
        """Whoever waits gets the result, early or late."""
        early = [self.wait(), self.wait()]
        self.assertFalse(self.shared.is_set)
        self.shared.succeed(7)
        self.assertTrue(self.shared.is_set)
        self.assertEqual([7, 7, 7], [self.successResultOf(d) for d in [*early, self.wait()]])

    def test_second_result_is_ignored(self) -> None:
        """Only the first result counts, whatever comes later."""
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
        """A waiter that gives up takes nobody along."""
        first, second = self.wait(), self.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.shared.succeed(7)
        self.assertEqual(7, self.successResultOf(second))

    def test_waiter_cancelled_while_others_are_woken_starves_nobody(self) -> None:
        """One client's answer may end another's request at that very moment; the rest go on."""
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

    def test_waiter_that_fails_starves_nobody(self) -> None:
        """An error in what one waiter does next stays with that waiter."""

        async def first() -> None:
            await self.shared.wait()
            raise ZeroDivisionError

        failing, second = Deferred.fromCoroutine(first()), self.wait()
        self.shared.succeed(7)
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertEqual(7, self.successResultOf(second))


class BellTests(SynchronousTestCase):
    def test_ring_wakes_the_waiter_once(self) -> None:
        """A ring wakes whoever waits then; rings before and after are not remembered."""
        bell = Wakeup()
        bell.ring()
        waiting = Deferred.fromCoroutine(bell.wait())
        self.assertNoResult(waiting)
        bell.ring()
        self.successResultOf(waiting)
        bell.ring()
        self.assertNoResult(Deferred.fromCoroutine(bell.wait()))

    def test_cancelled_waiter_can_be_followed_by_another(self) -> None:
        """A wait that was called off leaves the bell as it was."""
        bell = Wakeup()
        waiting = Deferred.fromCoroutine(bell.wait())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        bell.ring()
        again = Deferred.fromCoroutine(bell.wait())
        bell.ring()
        self.successResultOf(again)


class FlightsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tasks = Tasks(Clock())
        self.flights: SingleFlight[str, int] = SingleFlight(self.tasks, "test")
        self.jobs: list[Deferred[int]] = []

    async def job(self) -> int:
        result: Deferred[int] = Deferred()
        self.jobs.append(result)
        return await result

    def join(self, key: str = "k") -> Deferred[int]:
        return Deferred.fromCoroutine(self.flights.join(key, self.job))

    def test_two_waiters_share_one_job(self) -> None:
        """Two requests for one thing cost one fetch."""
        first, second = self.join(), self.join()
        self.assertEqual(1, len(self.jobs))
        self.assertIn("k", self.flights)
        self.jobs[0].callback(3)
        self.assertEqual([3, 3], [self.successResultOf(d) for d in (first, second)])
        self.assertEqual(0, len(self.flights))

    def test_other_key_is_another_job(self) -> None:
        """Different things are fetched side by side."""
        first, second = self.join("a"), self.join("b")
        self.jobs[1].callback(2)
        self.assertEqual(2, self.successResultOf(second))
        self.assertNoResult(first)
        self.assertEqual((True, False), ("a" in self.flights, "b" in self.flights))

    def test_cancelled_waiter_does_not_stop_the_job(self) -> None:
        """One of two clients leaves, the other gets the answer."""
        first, second = self.join(), self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.jobs[0].callback(3)
        self.assertEqual(3, self.successResultOf(second))

    def test_job_outlives_all_waiters(self) -> None:
        """The job ends well though everybody has left, and who comes then joins it."""
        first = self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(["test k"], self.tasks.names)
        late = self.join()
        self.assertEqual(1, len(self.jobs))
        self.jobs[0].callback(3)
        self.assertEqual(3, self.successResultOf(late))
        self.assertEqual([], self.tasks.names)

    def test_failure_reaches_all_and_next_one_tries_again(self) -> None:
        """An error is everybody's, but it is not remembered."""
        waiters = [self.join(), self.join()]
        self.jobs[0].errback(NotFound("no"))
        for waiter in waiters:
            self.failureResultOf(waiter, NotFound)
        again = self.join()
        self.jobs[1].callback(4)
        self.assertEqual(4, self.successResultOf(again))

    def test_who_asks_again_at_once_gets_a_new_job(self) -> None:
        """A waiter that tries again in the moment of failure does not get the old failure."""

        async def stubborn() -> int:
            try:
                return await self.flights.join("k", self.job)
            except NotFound:
                return await self.flights.join("k", self.job)

        waiting = Deferred.fromCoroutine(stubborn())
        self.jobs[0].errback(NotFound("no"))
        self.assertNoResult(waiting)
        self.jobs[1].callback(5)
        self.assertEqual(5, self.successResultOf(waiting))

    def test_who_asks_again_after_success_gets_a_new_job(self) -> None:
        """A result is shared by those who waited for it, not by those who come later."""

        async def twice() -> list[int]:
            return [await self.flights.join("k", self.job), await self.flights.join("k", self.job)]

        waiting = Deferred.fromCoroutine(twice())
        self.jobs[0].callback(1)
        self.jobs[1].callback(2)
        self.assertEqual([1, 2], self.successResultOf(waiting))

    def test_unforeseen_error_reaches_waiters_and_log(self) -> None:
        """A fault of the program is told to those who wait and logged even if nobody does."""
        waiting = self.join()
        self.jobs[0].errback(ZeroDivisionError())
        self.failureResultOf(waiting, ZeroDivisionError)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertNotIn("k", self.flights)

    def test_job_cancelled_at_stop_is_unavailable_to_waiters(self) -> None:
        """A daemon that stops says "later" to those who wait."""
        waiting = self.join()
        self.successResultOf(Deferred.fromCoroutine(self.stop()))
        self.failureResultOf(waiting, Unavailable)
        self.assertEqual(0, len(self.flights))

    async def stop(self) -> None:
        clock: Any = self.tasks._clock
        stopping = Deferred.fromCoroutine(self.tasks.stop(1.0))
        clock.advance(1.0)
        await stopping

    def test_job_that_ends_at_once_needs_no_waiting(self) -> None:
        """A job that has its answer in hand is answered in the same breath."""

        async def ready() -> int:
            return 9

        waiting = Deferred.fromCoroutine(self.flights.join("k", ready))
        self.assertEqual(9, self.successResultOf(waiting))
        self.assertEqual(0, len(self.flights))
