"""Tests of calls that become one call."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.grouping import Grouping
from ncps.errors import NotFound, Unavailable
from tests.contract.running import start


class GroupingTests(SynchronousTestCase):
    """`calls` has the items of each call, and `ends` the Deferred that ends it."""

    def setUp(self) -> None:
        self.calls: list[list[str]] = []
        self.ends: list[Deferred[Sequence[str | BaseException]]] = []
        self.grouping: Grouping[str, str] = Grouping(self.call, most=3)

    async def call(self, items: Sequence[str]) -> Sequence[str | BaseException]:
        self.calls.append(list(items))
        self.ends.append(Deferred())
        return await self.ends[-1]

    def add(self, item: str) -> Deferred[str]:
        return start(self.grouping.add(item))

    def test_the_items_that_come_during_a_call_go_together(self) -> None:
        """The first item goes immediately; each caller gets its own result."""
        first, second, third = self.add("a"), self.add("b"), self.add("c")
        self.assertEqual(self.calls, [["a"]])
        self.ends[0].callback(["A"])
        self.assertEqual(self.successResultOf(first), "A")
        self.assertEqual(self.calls, [["a"], ["b", "c"]])
        self.ends[1].callback(["B", "C"])
        self.assertEqual(self.successResultOf(second), "B")
        self.assertEqual(self.successResultOf(third), "C")
        self.add("d")
        self.assertEqual(self.calls[2:], [["d"]])

    def test_a_call_has_so_many_items_at_most(self) -> None:
        """Further ones wait for the next call."""
        waiting = [self.add(item) for item in "abcde"]
        for made in (["A"], ["B", "C", "D"], ["E"]):
            self.ends[len(self.calls) - 1].callback(made)
        self.assertEqual(self.calls, [["a"], ["b", "c", "d"], ["e"]])
        self.assertEqual([self.successResultOf(each) for each in waiting], list("ABCDE"))

    def test_items_that_share_a_call_are_counted(self) -> None:
        """Items that go alone are not; with `most` 1 all go alone."""
        for most, shared in ((3, [3, 2]), (1, [])):
            counts: list[int] = []
            self.calls, self.ends = [], []
            self.grouping = Grouping(self.call, most=most, shared=counts.append)
            for item in "abcdef":
                self.add(item)
            while len(self.ends) > 0 and self.calls:
                self.ends[-1].callback([item.upper() for item in self.calls.pop()])
            self.assertEqual(shared, counts)

    def test_several_calls_at_once(self) -> None:
        """`at_once` calls run at the same time."""
        self.grouping = Grouping(self.call, at_once=2)
        for item in "abcd":
            self.add(item)
        self.assertEqual(self.calls, [["a"], ["b"]])
        self.ends[1].callback(["B"])
        self.assertEqual(self.calls[2:], [["c", "d"]])

    def test_the_error_of_one_is_not_that_of_others(self) -> None:
        """An error in the results is that of one item; a raised error is that of all items."""
        first, second, third = self.add("a"), self.add("b"), self.add("c")
        self.ends[0].callback(["A"])
        self.ends[1].callback([NotFound("b"), "C"])
        self.successResultOf(first)
        self.failureResultOf(second, NotFound)
        self.assertEqual(self.successResultOf(third), "C")
        waiting = [self.add(item) for item in "abc"]
        self.ends[2].errback(Unavailable("away"))
        self.ends[3].errback(Unavailable("away"))
        for each in waiting:
            self.failureResultOf(each, Unavailable)
        again = self.add("d")
        self.ends[4].callback(["D"])
        self.assertEqual(self.successResultOf(again), "D")

    def test_a_wrong_number_of_results_hangs_no_caller(self) -> None:
        """A wrong number of results is an error of all items."""
        waiting = self.add("a")
        self.ends[0].callback([])
        self.failureResultOf(waiting, AssertionError)

    def test_a_cancelled_caller_stops_nothing(self) -> None:
        """The item of a cancelled caller is processed, and the others get their results."""
        first, second, third = self.add("a"), self.add("b"), self.add("c")
        first.cancel()
        second.cancel()
        self.failureResultOf(first, CancelledError)
        self.failureResultOf(second, CancelledError)
        self.ends[0].callback(["A"])
        self.assertEqual(self.calls[1:], [["b", "c"]])
        self.ends[1].callback([NotFound("b"), "C"])
        self.assertEqual(self.successResultOf(third), "C")

    def test_a_caller_that_adds_immediately_waits_with_the_others(self) -> None:
        """A caller that adds another item immediately waits together with the others."""

        async def twice() -> str:
            return await self.grouping.add("a") + await self.grouping.add("b")

        both, other = start(twice()), self.add("c")
        self.ends[0].callback(["A"])
        self.assertEqual(self.calls[1:], [["c", "b"]])
        self.ends[1].callback(["C", "B"])
        self.assertEqual(self.successResultOf(both), "AB")
        self.assertEqual(self.successResultOf(other), "C")
