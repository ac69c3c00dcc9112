"""Tasks, Coalesced and Ticker: background work with a name, a log and an end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import UNWIND_S, Coalesced, Tasks, Ticker
from ncps.errors import Unavailable


class TasksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)

    async def sleep(self, seconds: float) -> None:
        await deferLater(self.clock, seconds)

    def stop(self, deadline_s: float) -> Deferred[int]:
        return Deferred.fromCoroutine(self.tasks.stop(deadline_s))

    def test_names_are_those_of_running_tasks(self) -> None:
        """`names` has the names of the running tasks."""
        self.tasks.start("long", self.sleep(9))
        self.tasks.start("short", self.sleep(1))
        self.tasks.start("none", self.nothing())
        self.assertEqual(["long", "short"], self.tasks.names)
        self.clock.advance(1)
        self.assertEqual(["long"], self.tasks.names)

    async def nothing(self) -> None:
        pass

    def test_failure_is_logged_and_stays_there(self) -> None:
        """The failure of a task is only in the log."""

        async def fail() -> None:
            raise ZeroDivisionError

        self.tasks.start("failing", fail())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([], self.tasks.names)

    def test_cancel_is_no_failure(self) -> None:
        """A cancelled task is no error in the log."""
        self.tasks.start("long", self.sleep(9)).cancel()
        self.assertEqual([], self.tasks.names)
        self.assertEqual([], self.flushLoggedErrors())

    def test_stop_with_nothing_to_do_is_at_once(self) -> None:
        """Without tasks `stop` returns immediately."""
        self.assertEqual(0, self.successResultOf(self.stop(5)))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stop_waits_for_the_last_one(self) -> None:
        """`stop` waits for tasks that end before the deadline."""
        self.tasks.start("a", self.sleep(1))
        self.tasks.start("b", self.sleep(2))
        stopping = self.stop(5)
        self.clock.advance(1)
        self.assertNoResult(stopping)
        self.clock.advance(1)
        self.assertEqual(0, self.successResultOf(stopping))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stop_cuts_at_the_deadline(self) -> None:
        """A task that takes too long is cancelled and counted."""
        self.tasks.start("a", self.sleep(60))
        self.tasks.start("b", self.sleep(60))
        stopping = self.stop(5)
        self.clock.advance(5)
        self.assertEqual(2, self.successResultOf(stopping))
        self.assertEqual([], self.tasks.names)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stop_waits_for_cancelled_jobs_to_release_their_leases(self) -> None:
        """A cancelled job releases its lease before the stop goes on."""
        released: list[bool] = []

        async def holding() -> None:
            try:
                await self.sleep(60)
            finally:
                await self.sleep(1)
                released.append(True)

        self.tasks.start("holding", holding())
        stopping = self.stop(5)
        self.clock.advance(5)
        self.assertNoResult(stopping)
        self.clock.advance(1)
        self.assertEqual(1, self.successResultOf(stopping))
        self.assertEqual([True], released)

    def test_stop_does_not_wait_for_a_task_that_ignores_it(self) -> None:
        """A task that ignores its cancellation does not block `stop` for ever."""

        async def deaf() -> None:
            while True:
                try:
                    await Deferred()
                except CancelledError:
                    continue

        self.tasks.start("deaf", deaf())
        stopping = self.stop(5)
        self.clock.advance(5)
        self.assertNoResult(stopping)
        self.clock.advance(UNWIND_S)
        self.assertEqual(1, self.successResultOf(stopping))

    def test_two_stops_at_the_same_time_both_end(self) -> None:
        """Two calls of `stop` at the same time both end."""
        self.tasks.start("a", self.sleep(2))
        first, second = self.stop(1), self.stop(9)
        self.clock.advance(1)
        self.assertEqual(1, self.successResultOf(first))
        self.assertEqual(0, self.successResultOf(second))

    def test_cancelled_stop_forgets_its_timer(self) -> None:
        """A cancelled `stop` leaves no timer."""
        self.tasks.start("a", self.sleep(2))
        stopping = self.stop(9)
        stopping.cancel()
        self.failureResultOf(stopping, CancelledError)
        self.clock.advance(2)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_ten_thousand_tasks_that_end_at_once(self) -> None:
        """Ten thousand short tasks neither recurse nor stay in the list."""

        async def chain() -> None:
            for _ in range(10_000):
                self.tasks.start("small", self.nothing())

        self.tasks.start("chain", chain())
        self.assertEqual([], self.tasks.names)


class CoalescedTests(SynchronousTestCase):
    """Coalesced: a job that many callers ask for."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.runs = 0
        self.gate: Deferred[None] | None = None
        self.job = Coalesced(self.clock, self.tasks, "job", self.run_once, longest_rest_s=10)

    async def run_once(self) -> None:
        self.runs += 1
        if self.gate is not None:
            await self.gate

    def test_it_runs_at_once(self) -> None:
        """The job runs immediately if it neither runs nor pauses."""
        for count in (1, 2):
            self.job.ask()
            self.assertEqual((count, []), (self.runs, self.tasks.names))

    def test_asking_while_it_runs_gives_one_more_run(self) -> None:
        """Requests during a run lead to one more run."""
        gate = self.gate = Deferred()
        for _ in range(5):
            self.job.ask()
        self.assertEqual((1, ["job"]), (self.runs, self.tasks.names))
        self.gate = None
        gate.callback(None)
        self.assertEqual((2, []), (self.runs, self.tasks.names))

    def test_asking_while_it_rests_waits(self) -> None:
        """Requests during a pause wait, at most for the longest pause."""
        for rest_s in (5, 1000):
            self.job.rest(rest_s)
            before = self.runs
            self.job.ask()
            self.job.ask()
            self.clock.advance(min(rest_s, 10) - 1)
            self.assertEqual(before, self.runs)
            self.clock.advance(1)
            self.assertEqual(before + 1, self.runs)

    def test_one_that_asks_for_itself_runs_again(self) -> None:
        """A job may ask for its own next run."""

        async def again() -> None:
            self.runs += 1
            if self.runs < 3:
                job.rest(1)
                job.ask()

        job = Coalesced(self.clock, self.tasks, "again", again, longest_rest_s=10)
        job.ask()
        self.clock.pump([1.0] * 5)
        self.assertEqual((3, []), (self.runs, self.tasks.names))

    def test_a_failure_is_not_the_end(self) -> None:
        """A failure is logged, and the job can run again."""
        self.gate = Deferred()
        self.job.ask()
        self.gate.errback(ZeroDivisionError())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.gate = None
        self.job.ask()
        self.assertEqual(2, self.runs)

    def test_a_stop_ends_its_rest(self) -> None:
        """`stop` ends the pause and leaves no timer."""
        self.job.rest(5)
        self.job.ask()
        stopping = Deferred.fromCoroutine(self.tasks.stop(0))
        self.clock.advance(0)
        self.assertEqual(1, self.successResultOf(stopping))
        self.assertEqual((0, []), (self.runs, self.clock.getDelayedCalls()))


class TickerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.ticks = 0
        self.error: BaseException | None = None

    async def tick(self) -> None:
        self.ticks += 1
        if self.error is not None:
            raise self.error

    def start(self, interval: Any) -> Deferred[None]:
        return self.tasks.start("tick", Ticker(self.clock, "tick", self.tick, interval).run())

    def test_ticks_immediately_and_then_after_each_interval(self) -> None:
        """The first tick comes immediately, the next ones when the pause is over."""
        self.start(10)
        self.assertEqual(1, self.ticks)
        self.clock.pump([9, 1, 10])
        self.assertEqual(3, self.ticks)

    def test_interval_is_asked_again(self) -> None:
        """The interval is computed before each pause."""
        pauses = [1.0, 5.0, 60.0]
        self.start(lambda: pauses.pop(0))
        self.clock.advance(1)
        self.assertEqual(2, self.ticks)
        self.clock.advance(1)
        self.assertEqual(2, self.ticks)
        self.clock.advance(4)
        self.assertEqual(3, self.ticks)

    def test_failing_tick_is_followed_by_the_next(self) -> None:
        """After a failed tick the next one follows."""
        self.error = ZeroDivisionError()
        self.start(10)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.error = None
        self.clock.advance(10)
        self.assertEqual(2, self.ticks)

    def test_tick_that_could_not_be_done_is_a_line_of_the_log(self) -> None:
        """An expected failure is one line of the log, without a traceback."""
        self.error = Unavailable("the database does not answer")
        with capturedLogs() as events:
            self.start(10)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual(["the database does not answer"], [e["reason"] for e in events])
        self.error = None
        self.clock.advance(10)
        self.assertEqual(2, self.ticks)

    def test_cancel_ends_it(self) -> None:
        """Cancelling ends a ticker, between ticks and within one."""
        self.start(10).cancel()
        self.clock.advance(10)
        self.assertEqual(1, self.ticks)

        async def tick() -> None:
            await Deferred()

        ticking = self.tasks.start("t", Ticker(self.clock, "t", tick, 1).run())
        ticking.cancel()
        self.assertEqual([], self.tasks.names)
        self.assertEqual([], self.clock.getDelayedCalls())
