"""Batching: one call for the questions of a turn, an answer for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.batching import AT_ONCE, HOLD_S, MOST, Batching
from ncps.errors import Busy, Unavailable
from tests.contract.running import start

Values = Mapping[int, "str | BaseException"]


class BatchingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[Sequence[int], Deferred[Values]]] = []
        self.batching: Batching[int, str] = Batching(self.clock, self.called, most_waiting=200)

    def called(self, keys: Sequence[int]) -> Deferred[Values]:
        done: Deferred[Values] = Deferred()
        self.calls.append((keys, done))
        return done

    def ask(self, *keys: int) -> list[Deferred[str | None]]:
        return [start(self.batching.ask(key)) for key in keys]

    def answer(self, number: int, **errors: BaseException) -> None:
        keys, done = self.calls[number]
        done.callback({key: errors.get(f"e{key}", f"value {key}") for key in keys})

    def test_the_questions_of_one_turn_are_one_call(self) -> None:
        """After the turn each caller gets its own value."""
        asked = self.ask(1, 2, 3)
        self.assertEqual(self.calls, [])
        self.clock.advance(0)
        self.assertEqual([keys for keys, _ in self.calls], [[1, 2, 3]])
        self.answer(0)
        values = [self.successResultOf(one) for one in asked]
        self.assertEqual(values, ["value 1", "value 2", "value 3"])

    def test_a_key_is_asked_for_once(self) -> None:
        """Two callers with one key share its value; a key without a value gives None."""
        asked = self.ask(1, 1, 2)
        self.clock.advance(0)
        keys, done = self.calls[0]
        self.assertEqual(keys, [1, 2])
        done.callback({1: "one"})
        self.assertEqual([self.successResultOf(one) for one in asked], ["one", "one", None])

    def test_an_error_of_one_key_is_that_of_its_caller_alone(self) -> None:
        """A row that is damaged fails no other question."""
        bad, good = self.ask(1, 2)
        self.clock.advance(0)
        self.answer(0, e1=Unavailable("damaged"))
        self.failureResultOf(bad, Unavailable)
        self.assertEqual(self.successResultOf(good), "value 2")

    def test_a_call_that_fails_is_an_error_of_each(self) -> None:
        """All callers get the error, and later questions make a new call."""
        asked = self.ask(1, 2)
        self.clock.advance(0)
        self.calls[0][1].errback(Unavailable("away"))
        for one in asked:
            self.failureResultOf(one, Unavailable)
        (again,) = self.ask(1)
        self.clock.advance(0)
        self.answer(1)
        self.assertEqual(self.successResultOf(again), "value 1")

    def test_a_caller_that_leaves_stops_nothing(self) -> None:
        """The key of a caller that was cancelled before the call is not asked for."""
        before, after, stays = self.ask(1, 2, 3)
        before.cancel()
        self.clock.advance(0)
        self.assertEqual(self.calls[0][0], [2, 3])
        after.cancel()
        self.answer(0)
        self.failureResultOf(before, CancelledError)
        self.failureResultOf(after, CancelledError)
        self.assertEqual(self.successResultOf(stays), "value 3")

    def test_no_call_is_larger_than_most(self) -> None:
        """Many questions of one turn make several calls, `AT_ONCE` at the same time."""
        self.ask(*range(MOST * 3))
        self.clock.advance(0)
        self.assertEqual([len(keys) for keys, _ in self.calls], [MOST] * AT_ONCE)
        self.answer(0)
        self.assertEqual([len(keys) for keys, _ in self.calls], [MOST] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_questions_wait_for_a_call_that_is_free(self) -> None:
        """Questions of several turns go together when a call has ended."""
        for number in range(AT_ONCE):
            self.ask(number)
            self.clock.advance(0)
        asked = self.ask(10)
        self.clock.advance(0)
        asked += self.ask(11)
        self.assertEqual(len(self.calls), AT_ONCE)
        self.answer(0)
        self.assertEqual(self.calls[-1][0], [10, 11])
        self.answer(AT_ONCE)
        self.assertEqual([self.successResultOf(one) for one in asked], ["value 10", "value 11"])

    def test_a_call_that_has_begun_answers_no_later_question(self) -> None:
        """A running call may have read before a write that the later caller has waited for."""
        (early,) = self.ask(1)
        self.clock.advance(0)
        (late,) = self.ask(1)
        self.clock.advance(0)
        self.calls[0][1].callback({})
        self.assertIsNone(self.successResultOf(early))
        self.assertNoResult(late)
        self.answer(1)
        self.assertEqual(self.successResultOf(late), "value 1")

    def test_calls_that_hang_hold_up_no_other_one(self) -> None:
        """A question waits for a free call no longer than `HOLD_S`."""
        for number in range(AT_ONCE):
            self.ask(number)
            self.clock.advance(0)
        (asked,) = self.ask(10)
        self.clock.advance(0)
        self.clock.advance(HOLD_S)
        self.answer(AT_ONCE)
        self.assertEqual(self.successResultOf(asked), "value 10")
        self.answer(0)
        self.answer(1)

    def test_questions_that_wait_are_bounded(self) -> None:
        """A question beyond the limit is refused; the others are answered."""
        asked = self.ask(*range(200))
        (refused,) = self.ask(200)
        self.failureResultOf(refused, Busy)
        self.batching.flush()
        for number in range(len(self.calls)):
            self.answer(number)
        self.assertEqual([self.successResultOf(one) for one in asked][-1], "value 199")

    def test_flush_waits_for_no_turn(self) -> None:
        """`flush` asks for waiting keys immediately, and leaves no timer."""
        (asked,) = self.ask(1)
        self.batching.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answer(0)
        self.assertEqual(self.successResultOf(asked), "value 1")
