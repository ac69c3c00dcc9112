"""An epoll reactor that does less for each event; only for Linux.

Its clock is monotonic, so neither a timeout nor a pause depends on the time of day.

Twisted's own gives every read and every write a logging context, for a prefix that only its old
log shows. Here they go straight to where Twisted deals with them and with their errors.

Where memory runs out, dealing with an error may fail like the call that led to it. Then it is not
known how much a connection has sent, so it must not live on; a listening socket must not close.
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

_LOST = Failure(ConnectionLost("out of memory"))  # made while there is some

BORROWED: Final = (
    "twisted.internet.epollreactor.EPollReactor._disconnectSelectable",
    "twisted.internet.epollreactor.EPollReactor._doReadOrWrite",
    "twisted.internet.epollreactor.EPollReactor._internalReaders",
    "twisted.internet.epollreactor.EPollReactor._poller",
    "twisted.internet.epollreactor.EPollReactor._selectables",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""

PAUSE_S = 0.01
"""Between two turns that failed outright."""


class LeanReactor(EPollReactor):
    """The epoll reactor of Twisted, with less work for each event."""

    # It goes on while the machine sleeps.
    seconds = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))

    _log = Logger()
    _poller: Any
    _selectables: dict[int, Any]

    def wall(self) -> float:
        """See `clocks.TellsTimeOfDay`."""
        return time.time()

    def doPoll(self, timeout: float | None) -> None:
        """See `EPollReactor`: wait for events, and have each dealt with.

        :param timeout: seconds; None waits for ever.
        """
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        deal, find = self._doReadOrWrite, self._selectables.get
        for fd, event in events:
            selectable = find(fd)
            if selectable is None:
                continue  # closed by what another event led to
            try:
                deal(selectable, fd, event)
            except Exception:  # noqa: BLE001 - a fault of one connection must not end them all
                self._cut(selectable)
                self._log.failure("while closing a connection")

    doIteration = doPoll

    def wake_by_edges(self, reader: Any) -> None:
        """Wake a reader once for each arrival, and not as long as something is there to be read.

        :param reader: is read only, and has been added.
        """
        self._poller.modify(reader.fileno(), EPOLLIN | EPOLLET)

    def mainLoop(self) -> None:
        """See `ReactorBase`: a turn in which memory runs out is not the last one."""
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
        """End a connection so that not one byte more leaves it, even if all else fails.

        A socket that listens for connections, signals or threads goes on: it is woken again.
        """
        if isinstance(selectable, Port) or selectable in self._internalReaders:
            return
        connection = getattr(selectable, "socket", None)
        if connection is not None:
            try:  # noqa: SIM105 - which would make an object
                connection.shutdown(SHUT_RDWR)
            except OSError:
                pass
        # As long as it is not taken off the list, epoll tells of its end, and this is tried again.
        selectable.connectionLost(_LOST)


def install() -> None:
    """Make it the reactor of this process.

    Raises ReactorAlreadyInstalledError if the process has a reactor.
    """
    installReactor(LeanReactor())
