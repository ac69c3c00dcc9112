"""Tunnel: connections to a proxy, and through it (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.address import HostnameAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps import __version__
from ncps.aio.reasons import reason_of
from ncps.aio.resolver import NamedEndpoint, NameTrouble
from ncps.aio.tls import VerifiedHTTPS
from ncps.errors import FailureKind
from ncps.upstream.proxies import Proxy

MAX_HEAD: Final = 16 * 1024
"""Bytes of the head of a proxy's answer to CONNECT, at most."""

_STATUS: Final = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
_END: Final = re.compile(rb"\r?\n\r?\n")


class ProxyTrouble(ConnectError):
    """A proxy cannot be reached, or does not connect us; `str()` of the error says why.

    :ivar timed_out: whether it did not answer in time.
    :ivar kind: see `errors.FailureKind`.
    """

    def __init__(
        self, message: str, *, timed_out: bool = False, kind: FailureKind = "connect"
    ) -> None:
        super().__init__(string=message)
        self.timed_out = timed_out
        self.kind: FailureKind = kind

    def __str__(self) -> str:
        return str(self.args[0])


@implementer(IStreamClientEndpoint)
class ProxyEndpoint:
    """Connects to a proxy, over TLS if the proxy requires that.

    :param timeout_s: the deadline of each attempt.
    """

    def __init__(self, reactor: Any, proxy: Proxy, timeout_s: float) -> None:
        self._proxy = proxy
        endpoint: IStreamClientEndpoint = NamedEndpoint(reactor, proxy.host, proxy.port, timeout_s)
        if proxy.is_secured:
            creator = VerifiedHTTPS().creatorForNetloc(proxy.host.encode("ascii"), proxy.port)
            endpoint = wrapClientTLS(creator, endpoint)
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`. Fails with ProxyTrouble if the proxy cannot be reached."""
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._explain)

    def _explain(self, failure: Failure) -> Failure:
        error = failure.value
        if failure.check(ConnectError, DNSLookupError) is None:
            return failure
        if isinstance(error, NameTrouble) and error.is_ours:
            return failure
        timed_out = getattr(error, "timed_out", "Timeout" in type(error).__name__)
        text = f"the proxy {self._proxy.name} cannot be reached: {reason_of(error)}"
        return Failure(ProxyTrouble(text, timed_out=timed_out))


@implementer(IStreamClientEndpoint)
class Tunnel:
    """Connects to a server through a proxy.

    :param clock: for the deadline.
    :param endpoint: connects to the proxy.
    :param target: host and port of the server, joined by a colon; an IPv6 address in brackets.
    :param timeout_s: the deadline of the proxy's answer.
    """

    def __init__(
        self,
        clock: Any,
        endpoint: IStreamClientEndpoint,
        proxy: Proxy,
        target: str,
        timeout_s: float,
    ) -> None:
        self.clock = clock
        self.proxy = proxy
        self.target = target
        self.timeout_s = timeout_s
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`. Fails with ProxyTrouble if the proxy does not connect."""
        connecting: Deferred[Any] = self._endpoint.connect(_Asking(self, protocolFactory))
        return connecting.addCallback(lambda asked: asked.inner)


class _Asking(Factory):
    """Makes the protocols that ask the proxy for a connection; several may be tried."""

    noisy = False

    def __init__(self, tunnel: Tunnel, factory: IProtocolFactory) -> None:
        self._tunnel = tunnel
        self._factory = factory

    def buildProtocol(self, addr: object) -> Protocol:
        """See `IProtocolFactory`."""
        return _Asked(self._tunnel, self._factory)


class _Asked(Protocol):
    """Asks the proxy for a connection, and passes all bytes on after that.

    :ivar inner: the protocol that uses the connection, once it is made.
    """

    def __init__(self, tunnel: Tunnel, factory: IProtocolFactory) -> None:
        self.inner: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        self._tunnel = tunnel
        self._factory = factory
        self._protocol: Any = None
        self._head = b""
        self._timer: Any = None

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        tunnel = self._tunnel
        target = tunnel.target.encode("ascii")
        fields = [
            b"CONNECT %b HTTP/1.1" % target,
            b"Host: %b" % target,
            b"User-Agent: ncps/%b" % __version__.encode("ascii"),
        ]
        if tunnel.proxy.authorization:
            fields.append(b"Proxy-Authorization: %b" % tunnel.proxy.authorization)
        self._timer = tunnel.clock.callLater(tunnel.timeout_s, self._expire)
        self._transport.write(b"\r\n".join([*fields, b"", b""]))

    @property
    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return
        self._head += data
        end = _END.search(self._head[:MAX_HEAD])
        if end is not None:
            self._answered(self._head[: end.end()], self._head[end.end() :])
        elif len(self._head) >= MAX_HEAD:
            self._fail(f"sent a head of more than {MAX_HEAD} bytes", kind="malformed")

    def _answered(self, head: bytes, rest: bytes) -> None:
        match = _STATUS.match(head)
        if match is None:
            self._fail("does not speak HTTP", kind="malformed")
            return
        status = int(match[1])
        if 100 <= status < 200:
            self._head = b""
            self.dataReceived(rest)
        elif not 200 <= status < 300:
            wants = ", it wants other credentials" if status == 407 else ""
            self._fail(
                f"does not connect to {self._tunnel.target}: status {status}{wants}", kind="status"
            )
        elif not self.inner.called:
            self._connected(rest)

    def _connected(self, rest: bytes) -> None:
        self._timer.cancel()
        host, _, port = self._tunnel.target.rpartition(":")
        address = HostnameAddress(host.encode("ascii"), int(port))
        self._protocol = self._factory.buildProtocol(address)
        self._protocol.makeConnection(self._transport)
        self.inner.callback(self._protocol)
        if rest:
            self._protocol.dataReceived(rest)

    def _expire(self) -> None:
        self._fail(f"did not answer within {self._tunnel.timeout_s:g} s", timed_out=True)

    def _fail(self, what: str, *, timed_out: bool = False, kind: FailureKind = "connect") -> None:
        if not self.inner.called:
            text = f"the proxy {self._tunnel.proxy.name} {what}"
            self.inner.errback(ProxyTrouble(text, timed_out=timed_out, kind=kind))
        self._abort()

    def _abort(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
        elif not self.inner.called:
            self._fail("closed the connection")
