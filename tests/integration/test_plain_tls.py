"""Plain requests over TLS use kept connections and are always encrypted."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    DefaultOpenSSLContextFactory,
    trustRootFromCertificates,
)
from twisted.trial.unittest import TestCase
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ncps.aio.tls import verified
from ncps.upstream.agent import Client
from ncps.upstream.destination import BasicCredentials, Destination, Timeouts
from tests.integration.encrypted import authority

reactor: Any = _reactor

TIMES: Final = Timeouts(connect_s=10, first_byte_s=10, nar_s=10, idle_s=10)


class Answering(Protocol):
    """The server's side of a connection: the same answer to each request."""

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._head = b""

    def connectionMade(self) -> None:
        self._server.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._server.requests.append(self._head.split(b" ")[1])
            self._head = b""
            transport: Any = self.transport
            transport.write(self.answer)


class Server(Factory):
    """A server of HTTPS.

    :ivar connections: number of connections so far.
    :ivar requests: the requested paths.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []

    def buildProtocol(self, addr: object) -> Answering:
        return Answering(self)


@implementer(IAgentEndpointFactory)
class Encrypted:
    """Connects to a port of this machine over TLS."""

    def __init__(self, port: int) -> None:
        self._port = port

    def endpointForURI(self, uri: URI) -> Any:
        """See `IAgentEndpointFactory`."""
        roots = trustRootFromCertificates([Certificate.loadPEM(authority().path.read_bytes())])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port)
        return wrapClientTLS(verified("127.0.0.1", trust=roots), endpoint)


class PlainTlsTests(TestCase):
    def setUp(self) -> None:
        self.server = Server()
        cert, key = authority().issue("upstream", names=("127.0.0.1",))
        context = DefaultOpenSSLContextFactory(str(key), str(cert))
        port = reactor.listenSSL(0, self.server, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.base = f"https://127.0.0.1:{port.getHost().port}"
        self.client = Client(
            reactor,
            Destination(
                base_url=self.base,
                timeouts=TIMES,
                credentials=BasicCredentials(user="u", password="p"),
            ),
            endpoints=Encrypted(port.getHost().port),
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.client.close()))

    async def ask(self, path: str) -> bytes:
        answer = await self.client.request("GET", self.base + path)
        data = b"".join([chunk async for chunk in answer.body])
        answer.body.close()
        return data

    def test_a_kept_connection_is_used_again(self) -> None:
        """Each request on it is encrypted: the server accepts nothing else, and ends it."""

        async def run() -> None:
            for number in range(3):
                self.assertEqual(b"z", await self.ask(f"/{number}"))
            self.assertEqual([b"/0", b"/1", b"/2"], self.server.requests)
            self.assertEqual(1, self.server.connections)

        return Deferred.fromCoroutine(run())  # type: ignore[return-value]
