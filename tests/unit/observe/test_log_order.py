"""Lines that wait in a batch are written before any later line."""

from __future__ import annotations

from weakref import WeakSet

from twisted.logger import ILogObserver, LogEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from ncps.observe import log_order
from ncps.observe.log_order import InOrder, precede


class _Waiting:
    """Waiting lines, here words."""

    def __init__(self, lines: list[str], *, is_broken: bool = False) -> None:
        self.lines = lines
        self.is_broken = is_broken

    def settle(self) -> None:
        """Write the words, or fail."""
        self.lines.append("waited")
        if self.is_broken:
            raise ValueError


class InOrderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.patch(log_order, "_waiting", WeakSet())  # that of this process has other tests' lines

    def order(self, *, is_reactors: bool = True) -> InOrder:
        @provider(ILogObserver)
        def write(event: LogEvent) -> None:
            self.lines.append("batch" if "log_batch" in event else "event")

        return InOrder(write, lambda: is_reactors)

    def test_waiting_lines_go_first(self) -> None:
        """A batch, and an event of another thread, do not have them written."""
        waiting = _Waiting(self.lines)
        precede(waiting)
        self.order()({})
        self.order()({"log_batch": 1})
        self.order(is_reactors=False)({})
        self.assertEqual(self.lines, ["waited", "event", "batch", "event"])

    def test_trouble_with_them_loses_no_event(self) -> None:
        """The event is written even if the waiting lines fail."""
        waiting = _Waiting(self.lines, is_broken=True)
        precede(waiting)
        self.assertRaises(ValueError, self.order(), {})
        self.assertEqual(self.lines, ["waited", "event"])
