"""Calls of a store: only the caller waits for a slow disk, and not for ever."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import NotFound, Unavailable
from ncps.storage.calls import AT_ONCE, CALM_S, DEADLINE_S, SLOW_S, Calls
from tests.fakes.threads import HeldThreads, InlineThreads


class CallsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = HeldThreads()
        self.dropped: list[object] = []
        self.calls = Calls(
            self.threads,
            clock=self.clock,
            where="the storage /x",
            is_local=True,
            now=self.clock.seconds,
        )

    def run_(self, function: Any, line: str = "a") -> Deferred[Any]:
        running = self.calls.run(function, line=line, drop=self.dropped.append)
        return Deferred.fromCoroutine(running)

    def test_results_and_errors(self) -> None:
        """Results and errors reach the caller."""

        def fail() -> None:
            raise NotFound("gone")

        good, bad = self.run_(lambda: 7), self.run_(fail)
        self.assertNoResult(good)
        self.threads.release()
        self.assertEqual(self.successResultOf(good), 7)
        self.failureResultOf(bad, NotFound)

    def test_one_file_does_not_take_all_threads(self) -> None:
        """Many callers of a file that hangs leave threads for other files."""
        slow = [self.run_(lambda: 1) for _ in range(AT_ONCE + 3)]
        self.assertEqual(len(self.threads), AT_ONCE)
        other = self.run_(lambda: 2, "b")
        self.assertEqual(len(self.threads), AT_ONCE + 1)
        self.threads.release()
        self.assertEqual([self.successResultOf(one) for one in slow], [1] * len(slow))
        self.assertEqual(self.successResultOf(other), 2)
        self.assertEqual(self.calls._lines, {})

    def test_there_is_a_deadline(self) -> None:
        """A caller that has waited too long gets an error; a later result is dropped, once."""
        waiting = [self.run_(partial(int, number)) for number in range(AT_ONCE + 1)]
        self.clock.advance(DEADLINE_S)
        for one in waiting:
            self.assertTrue(self.failureResultOf(one, Unavailable).value.timed_out)
        self.assertIn("took 60.0 s", self.calls.trouble)
        self.threads.release()
        self.assertEqual(len(self.threads), 0)
        self.assertEqual(self.calls._lines, {})

    def test_results_for_cancelled_callers_are_closed(self) -> None:
        """A file that was opened for a cancelled caller is closed; no unneeded call is made."""
        calls = 0

        def call() -> str:
            nonlocal calls
            calls += 1
            running.cancel()
            return "a file"

        running = self.run_(call)
        self.threads.release()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.dropped, ["a file"])
        running = self.run_(call)
        running.cancel()
        self.threads.release()
        self.failureResultOf(running, CancelledError)
        self.assertEqual((calls, self.dropped), (1, ["a file"]))

    def test_slow_and_quick_again(self) -> None:
        """After a slow call the reactor's thread makes no calls for a while; the log says so."""
        with capturedLogs() as events:
            self.assertTrue(self.calls.may_be_prompt)
            for _ in range(2):
                running = self.run_(lambda: self.clock.advance(SLOW_S))
                self.threads.release()
                self.successResultOf(running)
            self.assertFalse(self.calls.may_be_prompt)
            self.assertEqual(self.calls.trouble, "the storage /x took 0.2 s for one call")
            self.clock.advance(CALM_S / 2)
            self.calls.took(0.0)
            self.assertFalse(self.calls.may_be_prompt)
            self.clock.advance(CALM_S / 2)
            self.calls.took(0.0)
            self.assertTrue(self.calls.may_be_prompt)
            self.assertEqual(self.calls.trouble, "")
        lines = [event["log_format"].split(" ", 2)[2] for event in events]
        self.assertEqual([line[:11] for line in lines], ["slow: one c", "fast again"])

    def test_a_file_system_from_elsewhere_is_left_to_threads(self) -> None:
        """On a network file system all calls run in threads, even fast ones."""
        self.assertFalse(Calls(InlineThreads()).may_be_prompt)
