"""Asking for many narinfos at the same time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.bulk.asking import AT_ONCE, Answer, Asking
from tests.fakes.cache import served_narinfo


class AskingTests(SynchronousTestCase):
    """`waiting` has a Deferred for each question that has no answer yet."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting: dict[str, Deferred[ServedNarInfo]] = {}
        self.told: dict[str, Answer] = {}
        self.asking = Asking(self.clock, self.narinfo)
        self.answer = served_narinfo(b"text", Outcome.MISS)

    def tearDown(self) -> None:
        self.assertEqual([], self.clock.getDelayedCalls(), "timers left")

    async def narinfo(self, digest: str) -> ServedNarInfo:
        self.waiting[digest] = Deferred()
        try:
            return await self.waiting[digest]
        finally:
            del self.waiting[digest]

    def start(self, *digests: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.asking.all(digests, self.told.__setitem__, seconds=10.0))

    def test_each_answer_is_told_when_it_comes(self) -> None:
        """An error of one path ends no other."""
        asked = self.start("a", "b")
        absent = Absent("no", outcome=Outcome.MISS)
        self.waiting["a"].errback(absent)
        self.assertEqual({"a": absent}, self.told)
        self.waiting["b"].callback(self.answer)
        self.successResultOf(asked)
        self.assertEqual({"a": absent, "b": self.answer}, self.told)

    def test_a_number_at_once(self) -> None:
        """The next path is asked for when one has its answer."""
        asked = self.start(*map(str, range(AT_ONCE + 1)))
        self.assertEqual(AT_ONCE, len(self.waiting))
        self.waiting["0"].callback(self.answer)
        self.assertIn(str(AT_ONCE), self.waiting)
        for each in list(self.waiting.values()):
            each.callback(self.answer)
        self.successResultOf(asked)

    def test_the_deadline_cancels_all_that_wait(self) -> None:
        """Also if the first paths have answers: the other paths are not asked for."""
        asked = self.start("a", "b", "c")
        self.waiting["a"].callback(self.answer)
        self.clock.advance(9.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.successResultOf(asked)
        self.assertEqual(({"a": self.answer}, {}), (self.told, self.waiting))

    def test_a_client_that_leaves_cancels_all_that_wait(self) -> None:
        """The question is cancelled, not answered."""
        asked = self.start("a", "b")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual({}, self.waiting)

    def test_a_fault_of_ours_is_no_answer(self) -> None:
        """It ends the whole question with an error."""
        asked = self.start("a", "b")
        self.waiting["b"].errback(ZeroDivisionError())
        self.failureResultOf(asked, ZeroDivisionError)
        self.assertEqual({}, self.waiting)
