"""Connections that wait in the kernel while the process has no descriptors for them.

If a process accepts a connection and has no descriptor left for its answer, it must close it. A
connection that it does not accept waits in the queue of the listening socket until another ends.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

SPARE: Final = 16
"""Connections that may still come: every port accepts one more after it has stopped reading."""


class Crowd:
    """The listening ports, which stop accepting while the process has too few descriptors.

    :ivar most: connections for which there are descriptors; 0 for any number.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.most = 0
        self._ports: list[Any] = []
        self._is_waiting = False
        self._is_told = False

    def add(self, port: Any) -> None:
        """Add a port. It must listen, and have accepted no connection yet."""
        if self.most:
            _take_one_by_one(port)
        self._ports.append(port)

    def leave(self) -> None:
        """Forget the ports, which are about to close."""
        self._ports.clear()

    @property
    def _room(self) -> int:
        return self.most - min(SPARE, self.most // 4)

    def grew(self, count: int) -> bool:
        """Stop the ports if `count` connections are too many; return whether they stop now."""
        if not self.most or self._is_waiting or count < self._room:
            return False
        self._is_waiting = True
        for port in self._ports:
            port.stopReading()
        if not self._is_told:
            self._is_told = True
            self._log.warn(
                "{count} connections of clients are open, and the limit of descriptors allows no "
                "more: new ones wait; this is logged once",
                count=count,
            )
        return True

    def shrank(self, count: int) -> None:
        """Let the ports accept again if only `count` connections are open."""
        if self._is_waiting and count < self._room:
            self._is_waiting = False
            for port in self._ports:
                port.startReading()


def _take_one_by_one(port: Any) -> None:
    """Make a port of Twisted accept one connection a turn instead of an adaptive number."""
    kind = type(port)
    fixed = property(lambda _: 1, lambda _, number: None)
    port.__class__ = type(kind.__name__, (kind,), {"numberAccepts": fixed})
