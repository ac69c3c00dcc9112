"""Connections that send bytes when they are written, instead of after a report of epoll.

Twisted puts written bytes into a buffer, asks epoll to report when the socket has room, sends, and
withdraws the request. The socket nearly always has room, so that these two system calls and a turn
of the reactor are useless. Here, an answer that is made while its request is being received is sent
at the end of that. Only the bytes that the socket does not accept go Twisted's way.

If sending fails half-way, for example for a lack of memory, it is unknown how many bytes the client
has. Then no further byte may be sent: a byte sent twice makes a wrong answer of the right length.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet import main, tcp, unix
from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from ncps.aio.spool_file import AppendedFile
from ncps.aio.unchanged_file import UnchangedFile
from ncps.errors import NcpsError
from ncps.ports import SteadyFile
from ncps.web.fast.file_turn import BUFFER, FILE_LIMIT, send_in_turn

if TYPE_CHECKING:
    _Stock = tcp.Server
else:
    _Stock = object


_ABORTED = Failure(ConnectionAborted())  # made while there is memory


@define
class _Piece:
    """The part of a file that is still to be sent; this object owns the descriptor."""

    file: SteadyFile
    offset: int
    left: int


class PromptMixin(_Stock):
    """The common part of the transports for TCP and for UNIX sockets."""

    _is_corked = False
    _wants_to_write = False
    _piece: _Piece | None = None
    _unread = 0
    file_trouble: NcpsError | None = None
    """The error of the file for which the connection was cut."""

    @property
    def file_left(self) -> int:
        """Bytes of a file that the socket has not accepted yet."""
        return self._unread if self._piece is None else self._piece.left

    def take_unread(self) -> int:
        """Return the number of bytes of the file that are not in memory, and stop sending them."""
        unread, self._unread = self._unread, 0
        return unread

    def send_file(self, fd: int, offset: int, count: int, *, is_growing: bool = False) -> bool:
        """Send bytes of a file, past Twisted's buffers; False if the caller has to write them.

        Until they are sent, the producer is paused, and nothing may be written. If the file is too
        short, the connection is cut. If a part of the file is not in memory, the rest is left for a
        thread (`take_unread`), since nothing here may wait for a disk.

        :param is_growing: see `Segment`.
        """
        producer: Any = self.producer
        if producer is None or not self.connected or self.disconnecting or self._aborting:
            return False
        if self.has_unsent:
            return False
        own = os.dup(fd)
        try:
            file = AppendedFile(own) if is_growing else UnchangedFile(own)
            self._piece = _Piece(file, offset, count)
        except BaseException:
            os.close(own)
            raise
        if self._try_piece() is not None or self._piece is not None:
            self.producerPaused = True
            producer.pauseProducing()
            super().startWriting()  # the reactor then handles an error, which occurs again
        return True

    def send_with_file(self, head: bytes, file: SteadyFile, size: int) -> int | None:
        """See `send_in_turn`; None also if nothing may be sent now."""
        if not self._may_send:
            return None
        try:
            return send_in_turn(self.socket, head, file, size)
        except BaseException:
            self.shut()
            raise

    def _try_piece(self) -> Exception | None:
        try:
            return self._send_piece()
        except BaseException:
            self.shut()
            raise

    def _send_piece(self) -> Exception | None:
        piece = self._piece
        assert piece is not None
        turn = min(piece.left, FILE_LIMIT)
        while turn:
            try:
                count = piece.file.read_into(BUFFER[:turn], piece.offset)
            except NcpsError as trouble:
                self.file_trouble = trouble
                return main.CONNECTION_LOST
            if count is None:
                self._unread = piece.left
                self._drop_piece()
                return None
            try:
                sent = self.socket.send(BUFFER[:count])
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

    def shut(self) -> None:
        """Send no further byte; this needs no memory. The reactor then ends the connection.

        No code that can fail may run between a failure to send and this call.
        """
        try:  # noqa: SIM105 - `suppress` would allocate an object
            self.socket.shutdown(SHUT_RDWR)
        except OSError:
            pass

    def doWrite(self) -> Any:
        """See `FileDescriptor`."""
        if self._piece is not None:
            error = self._try_piece()
            if error is not None or self._piece is not None:
                return error
        try:
            return super().doWrite()  # if the buffer is empty, it resumes the producer
        except BaseException:
            self.shut()
            raise

    def writeSomeData(self, data: bytes) -> Any:
        """See `FileDescriptor`: at the end of a connection Twisted would send no bytes."""
        return super().writeSomeData(data) if data else 0

    def abortConnection(self) -> None:
        """See `ITCPTransport`; even if this fails, the client sees the end."""
        if self.disconnected or self._aborting:
            return
        try:
            reactor: Any = self.reactor
            reactor.callLater(0, self.connectionLost, _ABORTED)
            super().abortConnection()
        except BaseException:
            self.shut()
            self.startReading()  # reads the end of the connection
            raise

    def connectionLost(self, reason: Failure) -> None:
        """See `tcp.Connection`."""
        self._drop_piece()
        super().connectionLost(reason)

    def _uncork(self) -> None:
        """Send the collected bytes that the socket accepts now; the reactor sends the rest."""
        self._is_corked = False
        wants_to_write, self._wants_to_write = self._wants_to_write, False
        if not wants_to_write or not self.connected or self._aborting:
            return
        is_ending = self.disconnecting or self._writeDisconnecting
        if is_ending or self.doWrite() is not None or self.has_unsent:
            super().startWriting()  # the reactor then handles an error, which occurs again

    def send_written(self, write: Callable[[], object]) -> None:
        """Call `write`, and immediately send the bytes that the socket accepts."""
        if self._is_corked:  # they are sent at the end of the request that is being received
            write()
            return
        self._is_corked = True
        try:
            write()
        finally:
            self._uncork()

    def startWriting(self) -> None:
        """See `FileDescriptor`."""
        if self._is_corked:
            self._wants_to_write = True
        else:
            super().startWriting()

    @property
    def has_unsent(self) -> bool:
        """Whether the buffers hold bytes that the socket has not accepted yet."""
        return bool(self._tempDataBuffer) or len(self.dataBuffer) > self.offset

    @property
    def _may_send(self) -> bool:
        """Whether bytes may go to the socket, past the buffers."""
        is_ending = self.disconnecting or self._writeDisconnecting or self._aborting
        return bool(self.connected) and not (is_ending or self.has_unsent or self._piece)

    def send_now(self, data: bytes) -> None:
        """Write bytes, past the buffer if it is empty."""
        sent = 0
        if self._may_send:
            try:
                sent = self.socket.send(data)
            except OSError:  # full or broken: the write of the rest shows which
                sent = 0
            except BaseException:
                self.shut()
                raise
        if sent == len(data):
            return
        try:
            self.write(data[sent:])
        except BaseException:
            self.shut()
            raise


def send_written(transport: object, write: Callable[[], object]) -> None:
    """Call `write`, which writes an answer to a transport, and send the answer immediately.

    An answer that is made while a request is being received is sent at the end of that.
    """
    if isinstance(transport, PromptMixin):
        transport.send_written(write)
    else:  # of a test
        write()


class TcpTransport(PromptMixin, tcp.Server):
    """A TCP connection of a client."""


class UnixTransport(PromptMixin, unix.Server):
    """A connection of a client over a UNIX socket."""


def adopt(port: Any) -> None:
    """Make a listening TCP or UNIX port use these transports; other ports stay as they are.

    Call it before the next turn of the reactor.
    """
    # `tcp.Port` documents that this attribute may be replaced; `unix.Port` is a `tcp.Port`.
    if isinstance(port, unix.Port):
        port.transport = UnixTransport
    elif isinstance(port, tcp.Port):
        port.transport = TcpTransport
