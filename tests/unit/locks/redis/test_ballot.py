"""Tests of the decision by a majority of servers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.locks.redis.ballot import PATIENCE_S, Ballot, majority
from tests.contract.running import start


class BallotTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def ballot(self, servers: int, *votes: str | None) -> Ballot:
        """Return a ballot with votes; None is a server that gives no answer."""
        ballot = Ballot(self.clock, servers)
        for number, vote in enumerate(votes):
            if vote is None:
                ballot.fail(Unavailable(f"server {number} is away"))
            else:
                ballot.vote(vote)
        return ballot

    def test_majorities(self) -> None:
        """A majority is more than half, so two majorities share a server."""
        self.assertEqual([1, 2, 2, 3, 3, 4], [majority(servers) for servers in range(1, 7)])

    def test_the_answer_of_a_majority(self) -> None:
        """The answer of a majority counts as soon as it is known."""
        for servers, votes, expected in (
            (1, ["a"], "a"),
            (1, [""], ""),
            (3, ["a", "a"], "a"),
            (3, [None, "a", "a"], "a"),
            (3, ["b", "a", "a"], "a"),
            (3, ["", "", "a"], ""),
            (5, ["a", "b", "a", "a"], "a"),
            (5, [None, None, "a", "a", "a"], "a"),
            (3, ["a", "b", "c"], None),
            (3, ["a", None, "b"], None),
            (2, ["a", "b"], None),
            (4, ["a", "a", "b", "b"], None),
            (5, ["a", "a", "b", "b", None], None),
        ):
            ballot = self.ballot(servers, *votes)
            self.assertEqual(expected, self.successResultOf(start(ballot.result())), votes)

    def test_no_majority_answers(self) -> None:
        """The message names each silent server; for one server the error is its own."""
        error = self.failureResultOf(
            start(self.ballot(3, None, "a", None).result()), Unavailable
        ).value
        for part in ("2 of 3", "need 2", "server 0 is away", "server 2 is away"):
            self.assertIn(part, str(error))
        self.assertEqual(2, error.retry_after)
        error = self.failureResultOf(start(self.ballot(1, None).result()), Unavailable).value
        self.assertEqual("server 0 is away", str(error))

    def test_it_waits_for_a_majority(self) -> None:
        """The ballot itself has no deadline, because each server has one."""
        ballot = self.ballot(3, "a")
        result = start(ballot.result())
        self.clock.advance(100)
        self.assertNoResult(result)
        ballot.vote("a")
        self.assertEqual("a", self.successResultOf(result))

    def test_a_majority_that_disagrees_waits_briefly(self) -> None:
        """A slow server may decide, but only within the patience."""
        ballot = self.ballot(3, "a", "b")
        result = start(ballot.result())
        self.assertNoResult(result)
        ballot.vote("b")
        self.assertEqual("b", self.successResultOf(result))
        ballot = self.ballot(3, "a", "b")
        result = start(ballot.result())
        self.clock.advance(PATIENCE_S)
        self.assertIsNone(self.successResultOf(result))
        ballot.vote("b")  # too late, and harmless
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_answers_that_come_later(self) -> None:
        """Later answers are counted; an unexpected error counts as no answer."""
        ballot, answer = Ballot(self.clock, 3), Deferred[str]()
        waiting = start(ballot.entering(answer))
        broken: Deferred[str] = Deferred()
        failing = start(ballot.entering(broken))
        result = start(ballot.result())
        answer.callback("a")
        broken.errback(ZeroDivisionError())
        self.assertNoResult(result)
        ballot.vote("a")
        self.assertEqual("a", self.successResultOf(result))
        self.successResultOf(waiting)
        self.failureResultOf(failing, ZeroDivisionError)

    def test_the_leading_answer(self) -> None:
        """The leading answer is the most frequent one that is not empty."""
        self.assertEqual("", self.ballot(5).leading)
        self.assertEqual("a", self.ballot(5, "", "", "a", "b", "a").leading)
