"""An epoll reactor that does less for each event; only for Linux.

Its clock is one that nobody sets, so that neither a timeout nor a pause depends on the time of day.

Twisted's own gives every read and every write a logging context, for a prefix that only its old
log shows. Here they go straight to where Twisted deals with them and with their errors.
"""

from __future__ import annotations

import errno
import time
from functools import partial
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger


class LeanReactor(EPollReactor):
    """See the module."""

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
                self._log.failure("while closing a connection")

    doIteration = doPoll


def install() -> None:
    """Make it the reactor of this process; ReactorAlreadyInstalledError."""
    installReactor(LeanReactor())
