"""The order of the log: lines that wait in a batch are written before any later line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakSet

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent
from twisted.python.threadable import isInIOThread
from zope.interface import implementer


class Settles(Protocol):
    """An object with waiting lines; it belongs to the reactor's thread."""

    def settle(self) -> object:
        """Write the waiting lines."""


_waiting: Final[WeakSet[Settles]] = WeakSet()


def precede(lines: Settles) -> None:
    """Write the waiting lines of this object before any later line."""
    _waiting.add(lines)


@implementer(ILogObserver)
@frozen
class InOrder:
    """An observer that first writes the waiting lines, then passes an event on.

    An event of another thread cannot have them written. So it may come up to 0.25 s before the
    lines of requests that ended earlier.
    """

    inner: ILogObserver
    is_reactors: Callable[[], bool] = isInIOThread

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        try:
            if "log_batch" not in event and self.is_reactors():
                for lines in tuple(_waiting):
                    lines.settle()
        finally:
            self.inner(event)
