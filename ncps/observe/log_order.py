"""The order of the log: lines that wait to be written together come before any later line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakSet

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent
from twisted.python.threadable import isInIOThread
from zope.interface import implementer


class Settles(Protocol):
    """Has lines that wait; it is one of the reactor's thread."""

    def settle(self) -> object:
        """Have them written."""


_waiting: Final[WeakSet[Settles]] = WeakSet()


def precede(lines: Settles) -> None:
    """Have the waiting lines of this object written before any other line."""
    _waiting.add(lines)


@implementer(ILogObserver)
@frozen
class InOrder:
    """Passes events on, after the lines that wait.

    An event of another thread than the reactor's cannot call for them, so it may come up to 0.25 s
    before lines of requests that ended earlier.
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
