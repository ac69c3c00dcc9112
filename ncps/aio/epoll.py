"""An epoll reactor that does less for each event; only for Linux.

Its clock is monotonic, so neither a timeout nor a pause depends on the time of day.

Twisted's own reactor gives every read and every write a logging context, for a prefix that only its
old log shows. This one calls directly the function of Twisted that makes them and handles errors.

When memory runs out, the code that handles an error may fail as well. Then it is not known how many
bytes a connection has sent, so the connection must end; a listening socket must not close.
"""

from __future__ import annotations

import errno
import time
from functools import partial
from select import EPOLLET, EPOLLIN
from socket import SHUT_RDWR
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.main import installReactor
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

_LOST = Failure(ConnectionLost("out of memory"))  # made while there is memory

BORROWED: Final = (
    "twisted.internet.epollreactor.EPollReactor._disconnectSelectable",
    "twisted.internet.epollreactor.EPollReactor._doReadOrWrite",
    "twisted.internet.epollreactor.EPollReactor._internalReaders",
    "twisted.internet.epollreactor.EPollReactor._poller",
    "twisted.internet.epollreactor.EPollReactor._selectables",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""

MOST_EVENTS: Final = 8
"""Events that one turn handles, at most: timers and the results of threads wait for their end. The
kernel reports other events first in the next turn, so none is left out."""

PAUSE_S = 0.01
"""Seconds between two turns that both failed."""


class LeanReactor(EPollReactor):
    """The epoll reactor of Twisted, with less work for each event."""

    # Unlike CLOCK_MONOTONIC, this clock runs while the machine sleeps.
    seconds = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))

    _log = Logger()
    _poller: Any
    _selectables: dict[int, Any]

    def wall(self) -> float:
        """Return the time of day in seconds since 1970; see `clocks.wall_of`."""
        return time.time()

    def doPoll(self, timeout: float | None) -> None:
        """See `EPollReactor`: wait for events, and handle each one.

        :param timeout: seconds; None waits for ever.
        """
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, MOST_EVENTS)
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        deal, find = self._doReadOrWrite, self._selectables.get
        for fd, event in events:
            selectable = find(fd)
            if selectable is None:
                continue  # the handling of another event has closed it
            try:
                deal(selectable, fd, event)
            except Exception:  # noqa: BLE001 - a fault of one connection must not end them all
                self._cut(selectable)
                self._log.failure("while closing a connection")

    doIteration = doPoll

    def wake_by_edges(self, reader: Any) -> None:
        """Wake a reader once for each arrival, and not again while unread data is there.

        :param reader: must have been added, and must not write.
        """
        self._poller.modify(reader.fileno(), EPOLLIN | EPOLLET)

    def mainLoop(self) -> None:
        """See `ReactorBase`: continue after a turn in which memory ran out."""
        while True:
            try:
                super().mainLoop()
            except MemoryError:
                time.sleep(PAUSE_S)
            else:
                return

    def _disconnectSelectable(self, selectable: Any, why: Any, *rest: Any) -> None:
        """See `PosixReactorBase`."""
        if isinstance(why, MemoryError):
            self._cut(selectable)
        else:
            super()._disconnectSelectable(selectable, why, *rest)

    def _cut(self, selectable: Any) -> None:
        """End a connection so that it sends no further byte, even if everything else fails.

        A socket that listens for connections, signals or threads stays: epoll wakes it again.
        """
        if isinstance(selectable, Port) or selectable in self._internalReaders:
            return
        connection = getattr(selectable, "socket", None)
        if connection is not None:
            try:  # noqa: SIM105 - `suppress` would need memory
                connection.shutdown(SHUT_RDWR)
            except OSError:
                pass
        # If this call fails, epoll reports the end of the connection again, and this runs again.
        selectable.connectionLost(_LOST)


def install() -> None:
    """Install a `LeanReactor` as the reactor of this process.

    Raises ReactorAlreadyInstalledError if the process has a reactor.
    """
    installReactor(LeanReactor())
