"""A listening socket of several processes, of which each accepts its share of the connections.

Without a rule, the fastest process at a socket accepts whole bursts. So each process writes the
number of its connections into memory that all of them share. It accepts a connection only if no
other listening process has fewer. The kernel wakes all processes once for each arrival. If no
process has accepted a client after `PATIENCE_S`, the first process that looks accepts it: the
process whose turn it is may hang.

Linux only: it needs the length of the kernel's queue and edge-triggered epoll.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

PATIENCE_S: Final = 0.05
"""Seconds that a client waits for the process that has the fewest connections."""
MOST_A_TURN: Final = 32
"""Connections that one turn accepts, at most, so that the older connections are served in time."""
_SIZE: Final = 8  # bytes of a place
_PAUSED: Final = -1  # value of a place; 0: the process does not listen; else connections + 1
_QUEUED: Final = struct.Struct("24xI")  # tcpi_unacked of struct tcp_info, where a socket listens


def size_of(count: int) -> int:
    """Return how many bytes of memory `count` processes share."""
    return count * _SIZE


def share_of(own: int, others: Sequence[int], waiting: int) -> int:
    """Return how many of the waiting connections a process should accept.

    Connections go to the processes that have the fewest, until all have the same number. Each
    process may accept the remainder.

    :param own: connections of this process.
    :param others: connections of each other process that listens.
    """
    below = sorted(other for other in others if other < own)
    level, left = own, waiting
    for other in below:
        left -= level - other
    if left <= 0:
        return 0
    joined, above = 1 + len(below), sorted(other for other in others if other >= own)
    for other in above:
        if (other - level) * joined >= left:
            break
        left -= (other - level) * joined
        level, joined = other, joined + 1
    return level - own + -(-left // joined)


class Loads:
    """The numbers of connections of several processes; each process writes only its own place.

    :param fd: of memory of `size_of(count)` bytes, zeroed at first; the caller closes it.
    :param own: the place of this process, from 0; -1 for the supervisor, which has none.
    """

    def __init__(self, fd: int, count: int, own: int = -1) -> None:
        self._own = own
        self._connections = 0
        # The processor writes and reads a place in one piece, so no lock is needed.
        self._places = memoryview(mmap(fd, size_of(count))).cast("q")

    def enter(self) -> None:
        """Record that this process listens."""
        self._places[self._own] = 1 + self._connections

    def pause(self) -> None:
        """Record that this process, if it listens, accepts nothing until it enters again."""
        if self._places[self._own]:
            self._places[self._own] = _PAUSED

    def leave(self, place: int | None = None) -> None:
        """Record that a process has stopped listening: this one, or the one of `place`."""
        self._places[self._own if place is None else place] = 0

    def tell(self, connections: int) -> None:
        """Record how many connections this process has now."""
        self._connections = connections
        if self._places[self._own] > 0:
            self._places[self._own] = 1 + connections

    @property
    def are_all_gone(self) -> bool:
        """Whether no process listens, and none is paused."""
        return not any(self._places)

    def share(self, waiting: int) -> int:
        """Return how many of the waiting connections this process should accept."""
        others = [
            count - 1
            for place, count in enumerate(self._places)
            if count > 0 and place != self._own
        ]
        return share_of(self._connections, others, waiting)


class SharedPort(Port):
    """A port at a socket where other processes listen as well; they keep it when this port closes.

    :param reactor: wakes this port by `LeanReactor.wake_by_edges`.
    :param shared: a bound socket; this port closes its descriptor.
    :param backlog: clients that may wait; None for a socket of the service manager, which listens
        before and after this process.
    """

    reactor: Any

    def __init__(
        self,
        reactor: Any,
        shared: socket.socket,
        factory: IProtocolFactory,
        loads: Loads,
        backlog: int | None,
    ) -> None:
        super().__init__(0, factory, interface=shared.getsockname()[0], reactor=reactor)
        self._preexistingSocket = shared  # borrowed, as `listening` does
        self._loads = loads
        self._is_ours = backlog is not None
        self._is_reading = False
        self._look: IDelayedCall | None = None
        self._latest: float | None = None  # by the clock of the reactor; None: no client waits
        shared.setblocking(False)  # another process may be quicker
        if backlog is not None:
            shared.listen(backlog)

    def startReading(self) -> None:
        """See `IReadWriteDescriptor`: look also for clients that wait already."""
        super().startReading()
        self.reactor.wake_by_edges(self)
        self._is_reading = True
        self._loads.enter()
        self._look_in(0.0, self.doRead)

    def stopReading(self) -> None:
        """See `IReadWriteDescriptor`: other processes accept all clients from now on."""
        super().stopReading()
        self._is_reading = False
        self._loads.pause()
        self._latest = None
        self._look_no_more()

    def doRead(self) -> None:
        """See `IReadDescriptor`: accept this process's share of the clients that wait."""
        self._take(self.doRead, self._loads.share)

    def _take_all(self) -> None:
        self._latest = None  # if clients are left, their time begins again
        self._take(self._take_all, int)

    def _take(self, again: Callable[[], None], share: Callable[[int], int]) -> None:
        """Accept as many waiting clients as `share` says; call `again` if some are left."""
        # The kernel reports an arrival once. If a call below fails, its client must not wait for
        # ever. Later arrivals do not postpone this: while a process hangs, more may come.
        now = self.reactor.seconds()
        if self._latest is None:
            self._latest = now + PATIENCE_S
        self._look_in(max(0.0, self._latest - now), self._take_all)
        waiting = self._waiting()
        count = min(share(waiting), MOST_A_TURN)
        if count:
            self.numberAccepts = count
            super().doRead()
        if not self._is_reading:
            return
        left = self._waiting()
        if not left:
            self._latest = None
            self._look_no_more()
        elif left < waiting and share(left):
            self._look_in(0.0, again)

    def connectionLost(self, reason: Failure) -> None:
        """See `IListeningPort`: the last process that stops has the kernel refuse clients."""
        self._loads.leave()
        if self._is_ours and self._loads.are_all_gone:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        super().connectionLost(reason)

    def _look_in(self, seconds: float, look: Callable[[], None]) -> None:
        self._look_no_more()
        self._look = self.reactor.callLater(seconds, look)

    def _look_no_more(self) -> None:
        look, self._look = self._look, None
        if look is not None and look.active():
            look.cancel()

    def _waiting(self) -> int:
        """Return how many clients are in the kernel's queue."""
        found = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size)
        return int(_QUEUED.unpack(found)[0])
