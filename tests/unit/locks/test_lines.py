"""Tests of lines and bells."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from ncps.locks.bells import Bells
from ncps.locks.lines import Lines
from tests.contract.running import start


class LinesTests(SynchronousTestCase):
    def test_turns_come_in_order(self) -> None:
        """The next one's turn begins when the one before ends his, once."""
        lines = Lines()
        first = self.successResultOf(start(lines.turn("a")))
        second, third = start(lines.turn("a")), start(lines.turn("a"))
        self.successResultOf(start(lines.turn("b")))
        self.assertNoResult(second)
        first()
        first()
        leave = self.successResultOf(second)
        self.assertNoResult(third)
        leave()
        self.successResultOf(third)()
        self.assertNotIn("a", lines)
        self.assertIn("b", lines)

    def test_who_leaves_the_line_is_forgotten(self) -> None:
        """A cancelled wait does not keep a name."""
        lines = Lines()
        leave = self.successResultOf(start(lines.turn("a")))
        waiting = start(lines.turn("a"))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        leave()
        self.assertEqual(len(lines), 0)


class BellsTests(SynchronousTestCase):
    def test_a_bell_rings_once_for_its_name(self) -> None:
        """Ringing again, or for a name nobody waits for, does nothing."""
        bells = Bells()
        bell = bells.hang("a")
        bells.ring("b")
        self.assertNoResult(bell)
        bells.ring("a")
        self.successResultOf(bell)
        bells.ring("a")
        bells.take_down("a")
        bells.take_down("a")
        self.assertEqual(len(bells), 0)

    def test_all_bells(self) -> None:
        """After a gap everybody looks for himself, also who had stopped waiting."""
        bells = Bells()
        one, other = bells.hang("a"), bells.hang("b")
        other.cancel()
        self.failureResultOf(other, CancelledError)
        bells.ring_all()
        self.successResultOf(one)
