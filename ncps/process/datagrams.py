"""DatagramNotices: notices among the workers of one daemon, over UNIX datagrams.

Nothing depends on an arrival, so no notice is answered. If a busy sibling cannot receive notices
now, they are sent again soon; too many of them become one "gap": forget all. A sibling that does
not run needs no notice, because its successor begins with an empty memory.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ncps.errors import Unavailable
from ncps.ports import Notice, NoticeKind, Notices

GAP = Notice("gap")
RETRY_S = 0.05
MAX_WAITING = 1000
MAX_DATAGRAM = 8192
_KINDS = frozenset(get_args(NoticeKind))
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})

Send = Callable[[bytes, Path], bool]
"""Sends a datagram; False if its receiver has no room now. Raises OSError if there is none."""


class _Receiver(DatagramProtocol):
    """The receiver of datagrams; they arrive in the order in which they were sent."""

    def __init__(self, subscriber: Callable[[bytes], object]) -> None:
        self._subscriber = subscriber

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """See `DatagramProtocol`."""
        del addr
        self._subscriber(datagram)


@define(eq=False)
class _Sibling:
    """A sibling, and the notices that wait for it."""

    path: Path
    waiting: dict[Notice, None] = field(factory=dict)
    retry: IDelayedCall | None = None


class DatagramNotices(Notices):
    """The notices among the workers of one daemon; see `ncps.ports.Notices`.

    :param reactor: `IReactorUNIXDatagram` and `IReactorTime`.
    :param own: the socket of this worker.
    :param others: the sockets of its siblings, whether these run now or not.
    :param send: replaces the kernel's `sendto`.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, own: Path, others: Sequence[Path], send: Send | None = None
    ) -> None:
        self._reactor = reactor
        self._own = own
        self._siblings = [_Sibling(path) for path in others]
        self._send = send or self._send_now
        self._subscribers: list[Callable[[Notice], None]] = []
        self._port: IListeningPort | None = None
        self._sender: socket.socket | None = None

    def open(self) -> None:
        """Listen; call this before the worker fills a memory. Raises Unavailable if that fails."""
        try:
            self._own.unlink(missing_ok=True)  # the socket of a predecessor
            self._port = self._reactor.listenUNIXDatagram(
                str(self._own), _Receiver(self.received), MAX_DATAGRAM, 0o600
            )
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except (CannotListenError, OSError) as error:
            raise Unavailable(f"notices cannot be received: {error}") from error

    async def reopen(self) -> None:
        """Listen again; the subscribers forget everything. Raises Unavailable if that fails."""
        await self.close()
        self.open()
        for subscriber in self._subscribers:
            subscriber(GAP)

    async def close(self) -> None:
        """Stop sending and receiving; idempotent."""
        for sibling in self._siblings:
            sibling.waiting.clear()
            if sibling.retry is not None:
                sibling.retry.cancel()
                sibling.retry = None
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        port, self._port = self._port, None
        if port is not None:
            stopped: Deferred[object] = maybeDeferred(port.stopListening)
            await stopped
            with suppress(OSError):  # the socket or its directory has gone already
                self._own.unlink()

    async def publish(self, notice: Notice) -> None:
        for sibling in self._siblings:
            if GAP not in sibling.waiting:
                sibling.waiting[notice] = None
            if len(sibling.waiting) > MAX_WAITING:
                sibling.waiting = {GAP: None}
            if sibling.retry is None:
                self._flush(sibling)

    def subscribe(self, subscriber: Callable[[Notice], None]) -> None:
        self._subscribers.append(subscriber)

    def _flush(self, sibling: _Sibling) -> None:
        sibling.retry = None
        while sibling.waiting:
            taken, datagram = _packed(sibling.waiting)
            try:
                if not self._send(datagram, sibling.path):
                    sibling.retry = self._reactor.callLater(RETRY_S, self._flush, sibling)
                    return
            except OSError:
                sibling.waiting.clear()  # the sibling does not run
                return
            for notice in taken:
                del sibling.waiting[notice]

    def _send_now(self, datagram: bytes, path: Path) -> bool:
        if self._sender is None:
            raise OSError(errno.EBADF, "closed")
        try:
            self._sender.sendto(datagram, str(path))
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True

    def received(self, datagram: bytes) -> None:
        """Pass on the notices of a datagram; log and drop an invalid line."""
        for line in datagram.decode("ascii", "replace").splitlines():
            kind, _, name = line.partition(" ")
            if kind not in _KINDS:
                self._log.warn("a notice of unknown kind {kind}", kind=kind)
                continue
            for subscriber in self._subscribers:
                subscriber(Notice(kind, name))  # type: ignore[arg-type]  # checked above


def _packed(waiting: dict[Notice, None]) -> tuple[list[Notice], bytes]:
    """Return the first notices, as many as fit into one datagram, and that datagram."""
    taken: list[Notice] = []
    lines = b""
    for notice in waiting:
        line = f"{notice.kind} {notice.name}\n".encode("ascii")
        if taken and len(lines) + len(line) > MAX_DATAGRAM:
            break
        taken.append(notice)
        lines += line
    return taken, lines
