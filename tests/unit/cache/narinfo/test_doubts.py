"""Doubts about upstreams are bounded in time and number."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.narinfo.state import DOUBT_S, MAX_PATHS, Doubts

SOME, OTHER = "http://some", "http://other"


class DoubtsTests(SynchronousTestCase):
    """Upstreams whose narinfos were wrong are remembered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.doubts = Doubts(self.clock)

    def test_doubts_add_up_for_one_path_alone(self) -> None:
        """Each upstream that was wrong about a path is in doubt about that path."""
        self.doubts.add("a", SOME)
        self.doubts.add("a", OTHER)
        self.assertEqual({SOME, OTHER}, self.doubts.about("a"))
        self.assertEqual(frozenset(), self.doubts.about("b"))

    def test_doubts_pass(self) -> None:
        """After a while an upstream is trusted like any other."""
        self.doubts.add("a", SOME)
        self.clock.advance(DOUBT_S - 1)
        self.assertEqual({SOME}, self.doubts.about("a"))
        self.clock.advance(1)
        self.assertEqual(frozenset(), self.doubts.about("a"))
        self.doubts.add("a", OTHER)
        self.assertEqual({OTHER}, self.doubts.about("a"))

    def test_oldest_path_goes_first(self) -> None:
        """For any number of wrong paths, the memory stays small."""
        for number in range(MAX_PATHS + 1):
            self.doubts.add(str(number), SOME)
        self.assertEqual(frozenset(), self.doubts.about("0"))
        self.assertEqual({SOME}, self.doubts.about("1"))
