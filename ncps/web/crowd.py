"""Connections that wait in the kernel while the process has no descriptors for them.

A process that takes a connection and has no descriptor left for its answer must close it. One that
it does not take waits in the queue of the listening socket, and is served when another has ended.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

SPARE: Final = 16
"""Connections that may come in between: every port takes one more after it was told to wait."""


class Crowd:
    """Makes the listening ports wait while as many connections are open as fit.

    :ivar most: connections that fit; 0 for any number.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.most = 0
        self._ports: list[Any] = []
        self._is_waiting = False
        self._is_told = False

    def add(self, port: Any) -> None:
        """Let a port wait with the others. It must listen, and have taken no connection yet."""
        if self.most:
            _take_one_by_one(port)
        self._ports.append(port)

    def leave(self) -> None:
        """Let the ports alone from now on: they close."""
        self._ports.clear()

    @property
    def _room(self) -> int:
        return self.most - min(SPARE, self.most // 4)

    def grew(self, count: int) -> bool:
        """Take note of how many connections are open; return whether a wait begins."""
        if not self.most or self._is_waiting or count < self._room:
            return False
        self._is_waiting = True
        for port in self._ports:
            port.stopReading()
        if not self._is_told:
            self._is_told = True
            self._log.warn(
                "{count} connections of clients are open, and the limit of descriptors allows no"
                " more: new ones wait; this is logged once",
                count=count,
            )
        return True

    def shrank(self, count: int) -> None:
        """Take note of how many connections are open still."""
        if self._is_waiting and count < self._room:
            self._is_waiting = False
            for port in self._ports:
                port.startReading()


def _take_one_by_one(port: Any) -> None:
    """Have a port of Twisted take one connection in each turn, and not as many as came lately."""
    kind = type(port)
    fixed = property(lambda _: 1, lambda _, number: None)
    port.__class__ = type(kind.__name__, (kind,), {"numberAccepts": fixed})
