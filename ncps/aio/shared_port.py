"""A listening socket that several processes share, each of which takes its share of connections.

Of several processes at one socket the quickest takes whole bursts. So each process tells how many
connections it has, in memory that all of them share, and takes a connection only if no other one
that listens has fewer. All are woken by each arrival, once. A client that nobody has taken after
`PATIENCE_S` is taken by the first process that looks, since its own one may stand still.

Linux only: the kernel's queue of a socket and edges of epoll.
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
"""Connections that one turn takes, so that those that are there wait no longer for their bytes."""
_SIZE: Final = 8  # bytes of a place
_PAUSED: Final = -1  # in a place; 0: no process listens; else one more than its connections
_QUEUED: Final = struct.Struct("24xI")  # tcpi_unacked of struct tcp_info, where a socket listens


def size_of(count: int) -> int:
    """Bytes of the memory that `count` processes share."""
    return count * _SIZE


def share_of(own: int, others: Sequence[int], waiting: int) -> int:
    """Return how many of the waiting connections a process should take.

    Those go where the fewest are, until all have as many; what is left over is everybody's.

    :param own: connections that it has.
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
    """How many connections each of several processes has; each writes its own place only.

    :param fd: of memory of `size_of(count)` bytes, zeroed at first; it stays the caller's.
    :param own: the place of this process, from 0; the supervisor of the others has none, -1.
    """

    def __init__(self, fd: int, count: int, own: int = -1) -> None:
        self._own = own
        self._connections = 0
        # A number of a place is written and read in one piece, so nothing is locked.
        self._places = memoryview(mmap(fd, size_of(count))).cast("q")

    def enter(self) -> None:
        """Tell that this process listens."""
        self._places[self._own] = 1 + self._connections

    def pause(self) -> None:
        """Tell that this process, if it listens, takes no connections until it enters again."""
        if self._places[self._own]:
            self._places[self._own] = _PAUSED

    def leave(self, place: int | None = None) -> None:
        """Tell that a process has ended to listen: this one, or that of a place."""
        self._places[self._own if place is None else place] = 0

    def tell(self, connections: int) -> None:
        """Tell how many connections this process has now."""
        self._connections = connections
        if self._places[self._own] > 0:
            self._places[self._own] = 1 + connections

    @property
    def are_all_gone(self) -> bool:
        """Whether no process listens, nor will listen again after a pause."""
        return not any(self._places)

    def share(self, waiting: int) -> int:
        """Return how many of the waiting connections this process should take."""
        others = [
            told - 1 for place, told in enumerate(self._places) if told > 0 and place != self._own
        ]
        return share_of(self._connections, others, waiting)


class SharedPort(Port):
    """Listens at a socket that other processes listen at, too, and leaves it to them at the end.

    :param reactor: wakes it by `LeanReactor.wake_by_edges`.
    :param shared: is bound, and does not block; this port closes it.
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
        """See `IReadWriteDescriptor`: also what waits already is shared."""
        super().startReading()
        self.reactor.wake_by_edges(self)
        self._is_reading = True
        self._loads.enter()
        self._look_in(0.0, self.doRead)

    def stopReading(self) -> None:
        """See `IReadWriteDescriptor`: other processes take all from now on."""
        super().stopReading()
        self._is_reading = False
        self._loads.pause()
        self._latest = None
        self._look_no_more()

    def doRead(self) -> None:
        """See `IReadDescriptor`: take this process's share of the clients that wait."""
        self._take(self.doRead, self._loads.share)

    def _take_all(self) -> None:
        self._latest = None  # some may be left all the same, and wait once more
        self._take(self._take_all, int)

    def _take(self, again: Callable[[], None], share: Callable[[int], int]) -> None:
        """Take as many as `share` says of those that wait, and do it again if some are left."""
        # An arrival is told once. If something fails below, its client must not wait for ever.
        # Later arrivals do not put that off: of a process that stands still, more may come all the
        # time.
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
        """See `IListeningPort`: where no process listens any more, clients are refused at once."""
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
        """How many clients are in the kernel's queue."""
        found = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size)
        return int(_QUEUED.unpack(found)[0])
