"""Sockets that send when there is something to send, instead of when epoll has said that they may.

Stock Twisted puts what is written into a buffer, asks epoll to be told when the socket has room,
which it nearly always has, sends, and takes the question back: two more system calls and another
turn of the reactor for each answer. Here an answer that is made while its request is being
received leaves at the end of that, and only what the socket does not take goes the long way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet import main, tcp, unix
from twisted.python.failure import Failure

from ncps.errors import NcpsError
from ncps.still import StillFile

if TYPE_CHECKING:
    _Stock = tcp.Server
else:
    _Stock = object


FILE_LIMIT = 2 * 1024 * 1024
"""Bytes of a file that are sent before others have their turn."""

_BUFFER = memoryview(bytearray(512 * 1024))
"""Where pieces of files lie between two system calls; small enough for the caches of a core."""


@define
class _Piece:
    """What is still to be sent of a file; the descriptor is our own."""

    file: StillFile
    offset: int
    left: int


class PromptMixin(_Stock):
    """What transports for TCP and for UNIX sockets have in common."""

    _is_corked = False
    _wants_to_write = False
    _piece: _Piece | None = None
    file_trouble: NcpsError | None = None
    """What was wrong with the file that the connection was cut for."""

    @property
    def file_left(self) -> int:
        """Bytes of a file that are still to be given to the socket."""
        return 0 if self._piece is None else self._piece.left

    def send_file(self, fd: int, offset: int, count: int) -> bool:
        """Send bytes of a file, past Twisted's buffers; False: not now, they are to be written.

        Until they are sent the producer is paused, and nothing may be written. A file that turns
        out shorter ends the connection: its framing cannot be kept.
        """
        producer: Any = self.producer
        if producer is None or not self.connected or self.disconnecting or self._aborting:
            return False
        if self.has_unsent:
            return False
        own = os.dup(fd)
        try:
            self._piece = _Piece(StillFile(own), offset, count)
        except NcpsError:
            os.close(own)
            raise
        if self._send_piece() is not None or self._piece is not None:
            self.producerPaused = True
            producer.pauseProducing()
            super().startWriting()  # an error comes again then, and the reactor deals with it
        return True

    def _send_piece(self) -> Exception | None:
        piece = self._piece
        assert piece is not None
        turn = min(piece.left, FILE_LIMIT)
        while turn:
            try:
                count = piece.file.read_into(_BUFFER[:turn], piece.offset)
            except NcpsError as trouble:
                self.file_trouble = trouble
                return main.CONNECTION_LOST
            try:
                sent = self.socket.send(_BUFFER[:count])
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return main.CONNECTION_LOST
            piece.offset += sent
            piece.left -= sent
            turn -= sent
            if sent < count:
                break
        if not piece.left:
            self._drop_piece()
        return None

    def _drop_piece(self) -> None:
        piece, self._piece = self._piece, None
        if piece is not None:
            os.close(piece.file.fd)

    def doWrite(self) -> Any:
        """See `FileDescriptor`."""
        if self._piece is not None:
            error = self._send_piece()
            if error is not None or self._piece is not None:
                return error
        return super().doWrite()  # with nothing to send it has the producer go on

    def connectionLost(self, reason: Failure) -> None:
        """See `tcp.Connection`."""
        self._drop_piece()
        super().connectionLost(reason)

    def cork(self) -> None:
        """Only collect what is written, until `uncork`."""
        self._is_corked = True

    def uncork(self) -> None:
        """Send what was collected, as far as the socket takes it; the rest goes when it can."""
        self._is_corked = False
        if not self._wants_to_write:
            return
        self._wants_to_write = False
        if not self.connected or self._aborting:
            return
        is_ending = self.disconnecting or self._writeDisconnecting
        if is_ending or self.doWrite() is not None or self.has_unsent:
            super().startWriting()  # an error comes again then, and the reactor deals with it

    def startWriting(self) -> None:
        """See `FileDescriptor`."""
        if self._is_corked:
            self._wants_to_write = True
        else:
            super().startWriting()

    @property
    def has_unsent(self) -> bool:
        """Whether something that was written has not been given to the socket."""
        return bool(self._tempDataBuffer) or len(self.dataBuffer) > self.offset

    def send_now(self, data: bytes) -> None:
        """Write, past the buffer if it is empty."""
        sent = 0
        if self.connected and not (
            self._tempDataBuffer
            or self.dataBuffer
            or self.disconnecting
            or self._writeDisconnecting
            or self._aborting
        ):
            try:
                sent = self.socket.send(data)
            except OSError:  # full, or broken: whoever writes the rest is told
                sent = 0
        if sent < len(data):
            self.write(data[sent:])


class TcpTransport(PromptMixin, tcp.Server):
    """A TCP connection of a client."""


class UnixTransport(PromptMixin, unix.Server):
    """A connection of a client over a UNIX socket."""


def adopt(port: Any) -> None:
    """Have a port that listens make transports of this kind; others are left as they are.

    To be called before the reactor has its next turn.
    """
    # `tcp.Port` says of its attribute that it may be replaced; `unix.Port` is a `tcp.Port`.
    if isinstance(port, unix.Port):
        port.transport = UnixTransport
    elif isinstance(port, tcp.Port):
        port.transport = TcpTransport
