"""The shares of several processes in the waiting connections."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.shared_port import Loads, share_of, size_of

COUNTS = st.integers(0, 40)


def after(loads: Sequence[int], waiting: int) -> list[int]:
    """Return the connections of all processes after each has taken its share in turn."""
    found = list(loads)
    for place, own in enumerate(loads):
        taken = min(waiting, share_of(own, found[:place] + found[place + 1 :], waiting))
        found[place] += taken
        waiting -= taken
    return found


class ShareTests(SynchronousTestCase):
    def test_a_burst_is_divided(self) -> None:
        """Of 25 connections the first process takes 13 and leaves 12 to the other."""
        self.assertEqual([13, 12], after([0, 0], 25))

    def test_few_are_left_to_those_that_have_fewer(self) -> None:
        """A process takes nothing if another one has fewer connections."""
        self.assertEqual(0, share_of(5, [4], 1))
        self.assertEqual(0, share_of(5, [20, 0], 2))
        self.assertEqual(2, share_of(0, [20, 5], 2))

    def test_alone_all_are_taken(self) -> None:
        """A single process takes all connections."""
        self.assertEqual(7, share_of(30, [], 7))

    @given(st.lists(COUNTS, min_size=1, max_size=6), st.integers(0, 100))
    def test_connections_are_divided_evenly(self, loads: list[int], waiting: int) -> None:
        """All connections are taken, and the numbers of their takers differ by one at most."""
        found = after(loads, waiting)
        self.assertEqual(sum(loads) + waiting, sum(found))
        for before, now in zip(loads, found, strict=True):
            if now > before:
                self.assertLessEqual(now, min(found) + 1)


class LoadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        fd = os.memfd_create("test")
        self.addCleanup(os.close, fd)
        os.truncate(fd, size_of(2))
        self.first, self.second = (Loads(fd, 2, own) for own in range(2))
        self.supervisor = Loads(fd, 2)

    def test_only_those_that_listen_are_waited_for(self) -> None:
        """A process counts only while it listens: not before, after, or when it is dead."""
        self.first.enter()
        self.first.tell(9)
        self.assertEqual(1, self.first.share(1))
        self.second.enter()
        self.assertEqual(0, self.first.share(1))
        self.second.leave()
        self.assertEqual(1, self.first.share(1))
        self.second.enter()
        self.supervisor.leave(1)
        self.assertEqual(1, self.first.share(1))

    def test_one_that_has_left_comes_back_with_its_connections(self) -> None:
        """A process that has left reports connections, but does not count until it enters again."""
        self.first.enter()
        self.first.leave()
        self.first.tell(3)
        self.assertTrue(self.supervisor.are_all_gone)
        self.first.enter()
        self.assertFalse(self.supervisor.are_all_gone)
        self.second.enter()
        self.assertEqual(3, self.second.share(3))

    def test_one_that_pauses_is_not_waited_for(self) -> None:
        """A paused process takes nothing, but is not gone; its reports do not end the pause."""
        self.first.enter()
        self.second.enter()
        self.first.tell(9)
        self.second.pause()
        self.second.tell(3)
        self.assertEqual(1, self.first.share(1))
        self.first.leave()
        self.assertFalse(self.supervisor.are_all_gone)
        self.second.leave()
        self.second.pause()
        self.assertTrue(self.supervisor.are_all_gone)
