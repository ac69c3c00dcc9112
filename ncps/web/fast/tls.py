"""Encrypted connections, with the short cuts of plain ones.

OpenSSL, through the standard library, works on the socket itself. So `transport` does the same as
with a plain socket: it sends an answer immediately, sends bytes of a file from one buffer, and asks
the kernel how many bytes the client has not taken. Twisted's own TLS works in memory, between two
more buffers.

OpenSSL reads one record at a time, and `recv` returns it completely. So OpenSSL holds no bytes of a
client while the reactor waits for the socket.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from twisted.internet import main, tcp, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.python.failure import Failure

from ncps.auth.credentials import ClientCertificate
from ncps.errors import Refused
from ncps.web.certificates import Certificates, kind_of
from ncps.web.clients import plain_address
from ncps.web.fast.transport import PromptMixin

_WAITS: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)

_CN: Final = "commonName"

_SPEAK_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 45\r\n\r\nThis address speaks TLS: ask it by https://.\n"
)


class EncryptedSocket(ssl.SSLSocket):
    """A TLS socket that raises BlockingIOError where it has to wait, as a plain one does."""

    def send(self, data: Any, flags: int = 0) -> int:
        """See `socket.socket`: send as many records as the socket accepts."""
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            try:
                sent += super().send(view[sent:], flags)
            except OSError as error:
                if sent:
                    break  # a lasting error is raised at the next call
                if isinstance(error, _WAITS):
                    raise _would_block() from None
                raise
        return sent

    def sendmsg(self, buffers: Any, *_: Any) -> int:  # type: ignore[override]
        """See `socket.socket`; `SSLSocket` has no such method."""
        sent = 0
        for buffer in buffers:
            try:
                taken = self.send(buffer)
            except OSError:
                if sent:
                    break  # a lasting error is raised at the next call
                raise
            sent += taken
            if taken < len(buffer):
                break
        return sent

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """See `socket.socket`."""
        try:
            return super().recv(buflen, flags)
        except _WAITS:
            raise _would_block() from None

    def shutdown(self, how: int) -> None:
        """See `socket.socket`; received bytes are still decrypted."""
        if how == socket.SHUT_WR:
            self.say_end()
        socket.socket.shutdown(self, how)

    def say_end(self) -> None:
        """Send the end of the TLS connection: no more bytes come, and none is missing."""
        with suppress(OSError, ValueError):
            self.unwrap()


def _would_block() -> BlockingIOError:
    return BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))


class TlsTransport(PromptMixin, tcp.Server):
    """An encrypted connection of a client."""

    _is_open = False
    """Whether the handshake is done."""
    _late: IDelayedCall | None = None
    socket: Any
    """An `EncryptedSocket`; a plain one if the client had gone before."""

    is_encrypted = True
    _certificate: ClientCertificate | None = None

    def __init__(self, certificates: Certificates, sock: socket.socket, *more: Any) -> None:
        super().__init__(_encrypted(certificates.context, sock), *more)
        self._certificates = certificates
        self._era = certificates.era
        self._late = certificates.clock.callLater(certificates.handshake_s, self._too_late)

    def doRead(self) -> Any:
        """See `IReadDescriptor`."""
        if not self._is_open:
            trouble = self._shake_hands()
            if not self._is_open:
                return trouble
        return super().doRead()

    def doWrite(self) -> Any:
        """See `IWriteDescriptor`."""
        if not self._is_open and not self.disconnecting:
            self.stopWriting()
            return self._shake_hands()
        return super().doWrite()

    def _shake_hands(self) -> Exception | None:
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self.startWriting()
            return None
        except (OSError, ValueError, AttributeError) as error:  # a plain socket has no handshake
            kind = kind_of(error)
            self._certificates.failed(plain_address(self.getPeer()), kind)
            if kind == "plain_http":
                with suppress(OSError):
                    socket.socket.send(self.socket, _SPEAK_TLS)
                    # To close a socket with unread bytes resets it: the client loses the answer.
                    socket.socket.recv(self.socket, 65536)
            return main.CONNECTION_LOST
        self._is_open = True
        self._in_time()
        self._certificates.succeeded()
        return None

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """The certificate that the client has shown in its handshake; None if it has shown none.

        OpenSSL has verified it: see `aio.certificate`.
        """
        if self._certificate is None and self._is_open:
            self._certificate = certificate_of(self.socket.getpeercert())
        return self._certificate

    @property
    def is_outdated(self) -> bool:
        """Whether the authorities have changed, so that its client may have to be refused."""
        return self._era is not self._certificates.era

    def _in_time(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def _too_late(self) -> None:
        self._certificates.late(plain_address(self.getPeer()))
        self.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """See `tcp.Connection`; a connection that ends normally sends the end of TLS."""
        self._in_time()
        if self._is_open and reason.check(ConnectionDone) is not None:
            self.socket.say_end()
        super().connectionLost(reason)


def certificate_of(peer: Mapping[str, Any] | None) -> ClientCertificate | None:
    """Return the names in a verified certificate, as `SSLSocket.getpeercert` describes it."""
    if not peer:
        return None
    names = [value for part in peer.get("subject", ()) for kind, value in part if kind == _CN]
    return ClientCertificate(
        # With several names, it is unclear which of them the authority means.
        common_name=names[0] if len(names) == 1 else "",
        names=tuple(f"{kind}:{value}" for kind, value in peer.get("subjectAltName", ())),
    )


def _encrypted(context: ssl.SSLContext, sock: socket.socket) -> socket.socket:
    """Return the encrypted socket; a socket without a peer if the client has just gone."""
    context.sslsocket_class = EncryptedSocket
    try:
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    except (OSError, ValueError):
        sock.close()
        own, other = socket.socketpair()
        other.close()
        return own


def encrypt(port: IListeningPort, certificates: Certificates) -> None:
    """Make a listening port encrypt its connections. Raises Refused if it is not a TCP port.

    Call it before the next turn of the reactor.
    """
    if isinstance(port, unix.Port) or not isinstance(port, tcp.Port):
        raise Refused("server-addr: https+systemd needs a TCP socket")
    transport: Any = partial(TlsTransport, certificates)
    port.transport = transport
