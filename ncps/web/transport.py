"""Sockets that send when there is something to send, instead of when epoll has said that they may.

Stock Twisted puts what is written into a buffer, asks epoll to be told when the socket has room,
which it nearly always has, sends, and takes the question back: two more system calls and another
turn of the reactor for each answer. Here an answer that is made while its request is being
received leaves at the end of that, and only what the socket does not take goes the long way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix

if TYPE_CHECKING:
    _Stock = tcp.Server
else:
    _Stock = object


class PromptMixin(_Stock):
    """What transports for TCP and for UNIX sockets have in common."""

    _is_corked = False
    _wants_to_write = False

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
