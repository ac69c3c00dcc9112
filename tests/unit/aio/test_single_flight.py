"""SingleFlight: one job per key, and each waiter can be cancelled alone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.errors import NotFound, Unavailable


class SingleFlightTests(SynchronousTestCase):
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
        """Two callers with one key share one job."""
        first, second = self.join(), self.join()
        self.assertEqual(1, len(self.jobs))
        self.assertIn("k", self.flights)
        self.jobs[0].callback(3)
        self.assertEqual([3, 3], [self.successResultOf(d) for d in (first, second)])
        self.assertEqual(0, len(self.flights))

    def test_other_key_is_another_job(self) -> None:
        """Jobs of different keys run at the same time."""
        first, second = self.join("a"), self.join("b")
        self.jobs[1].callback(2)
        self.assertEqual(2, self.successResultOf(second))
        self.assertNoResult(first)
        self.assertEqual((True, False), ("a" in self.flights, "b" in self.flights))

    def test_cancelled_waiter_does_not_stop_the_job(self) -> None:
        """If one of two waiters is cancelled, the other gets the result."""
        first, second = self.join(), self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.jobs[0].callback(3)
        self.assertEqual(3, self.successResultOf(second))

    def test_a_job_can_be_ended(self) -> None:
        """Waiters of a cancelled job get Unavailable, and the next caller starts a new job."""
        first = self.join()
        self.flights.cancel("other")
        self.flights.cancel("k")
        self.failureResultOf(first, Unavailable)
        self.assertEqual([], self.tasks.names)
        second = self.join()
        self.jobs[1].callback(4)
        self.assertEqual(4, self.successResultOf(second))
        self.assertEqual([], self.tasks.names)
        self.assertEqual(0, len(self.flights))

    def test_job_outlives_all_waiters(self) -> None:
        """The job continues without waiters, and a later caller joins it."""
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
        """All waiters get the error; the next caller starts a new job."""
        waiters = [self.join(), self.join()]
        self.jobs[0].errback(NotFound("no"))
        for waiter in waiters:
            self.failureResultOf(waiter, NotFound)
        again = self.join()
        self.jobs[1].callback(4)
        self.assertEqual(4, self.successResultOf(again))

    def test_a_caller_that_asks_again_immediately_gets_a_new_job(self) -> None:
        """A waiter that asks again immediately after a failure gets a new job."""

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

    def test_a_caller_after_success_gets_a_new_job(self) -> None:
        """Waiters share a result; a later caller starts a new job."""

        async def twice() -> list[int]:
            return [await self.flights.join("k", self.job), await self.flights.join("k", self.job)]

        waiting = Deferred.fromCoroutine(twice())
        self.jobs[0].callback(1)
        self.jobs[1].callback(2)
        self.assertEqual([1, 2], self.successResultOf(waiting))

    def test_unforeseen_error_reaches_waiters_and_log(self) -> None:
        """An unexpected error reaches the waiters, and also the log, even without waiters."""
        waiting = self.join()
        self.jobs[0].errback(ZeroDivisionError())
        self.failureResultOf(waiting, ZeroDivisionError)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertNotIn("k", self.flights)

    def test_job_cancelled_at_stop_is_unavailable_to_waiters(self) -> None:
        """When the daemon stops, the waiters get Unavailable."""
        waiting = self.join()
        self.successResultOf(Deferred.fromCoroutine(self.stop()))
        self.failureResultOf(waiting, Unavailable)
        self.assertEqual(0, len(self.flights))

    async def stop(self) -> None:
        clock: Any = self.tasks._clock
        stopping = Deferred.fromCoroutine(self.tasks.stop(1.0))
        clock.advance(1.0)
        await stopping

    def test_job_that_ends_immediately_needs_no_waiting(self) -> None:
        """A job that ends immediately returns its result in the same turn."""

        async def ready() -> int:
            return 9

        waiting = Deferred.fromCoroutine(self.flights.join("k", ready))
        self.assertEqual(9, self.successResultOf(waiting))
        self.assertEqual(0, len(self.flights))
