"""A late answer leaves without another turn of the reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.narurl import NarKey
from ncps.web.fast.transport import TcpTransport, send_written
from tests.unit.web.wire import PEER, Server


class _Connected(SynchronousTestCase):
    def connect(self, protocol: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.client = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
        for end in (ours, self.client):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.reactor: Any = MemoryReactor()
        nobody: Any = None
        self.transport = TcpTransport(ours, protocol, ("127.0.0.1", 1), nobody, 0, self.reactor)


class SentAtOnceTests(_Connected):
    def setUp(self) -> None:
        self.connect(Protocol())

    def write(self, data: bytes) -> None:
        send_written(self.transport, lambda: self.transport.write(data))

    def test_bytes_leave_at_once(self) -> None:
        """The reactor does not have to watch the socket."""
        self.write(b"answer")
        self.assertEqual(b"answer", self.client.recv(100))
        self.assertEqual([], self.reactor.getWriters())

    def test_the_end_of_a_request_sends_all(self) -> None:
        """An answer that is made while its request is received waits for the end of that."""

        def answer() -> None:
            self.write(b"first ")
            self.assertRaises(BlockingIOError, self.client.recv, 100)
            self.write(b"second")

        self.transport.send_written(answer)
        self.assertEqual(b"first second", self.client.recv(100))

    def test_a_full_socket_gets_the_rest_when_it_can(self) -> None:
        """Then the reactor watches it."""
        self.write(bytes(8 << 20))
        self.assertEqual([self.transport], self.reactor.getWriters())


KEY = NarKey("0" * 52, "xz")
REQUEST = f"GET /{KEY.url} HTTP/1.1\r\nHost: cache.example\r\n\r\n".encode()
LARGE = bytes(8 << 20)
CLOSE = b"\r\nConnection: close\r\n\r\n"


class CountedSocket:
    """A socket that counts its sends."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.sends = 0

    def send(self, data: bytes) -> int:
        self.sends += 1
        return self._inner.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LateAnswerTests(_Connected):
    """An answer that waits for something before its head, such as an upstream."""

    def setUp(self) -> None:
        self.server = Server()
        protocol: Any = self.server.site.buildProtocol(PEER)
        self.connect(protocol)
        protocol.makeConnection(self.transport)
        self.server.cache.gate = Deferred()

    def ask(self, *pieces: bytes, request: bytes = REQUEST) -> None:
        self.server.cache.add_nar(KEY, *pieces, size=sum(map(len, pieces)))
        self.transport.protocol.dataReceived(request)
        self.assertRaises(BlockingIOError, self.client.recv, 100)
        gate = self.server.cache.gate
        assert gate is not None
        gate.callback(None)

    def test_head_and_body_leave_at_once(self) -> None:
        """The reactor does not have to watch the socket."""
        self.ask(b"the whole NAR")
        self.assertTrue(self.client.recv(10_000).endswith(b"\r\n\r\nthe whole NAR"))
        self.assertEqual([], self.reactor.getWriters())

    def test_the_end_of_a_connection_sends_nothing(self) -> None:
        """All bytes have left with the answer."""
        counted: Any = CountedSocket(self.transport.socket)
        self.transport.socket = counted
        self.ask(b"the whole NAR", request=REQUEST.replace(b"\r\n\r\n", CLOSE))
        self.assertEqual([self.transport], self.reactor.getWriters())
        self.assertIsNotNone(self.transport.doWrite())
        self.assertEqual(1, counted.sends)

    def test_a_slow_client_gets_all_bytes_in_order(self) -> None:
        """The socket takes a part of the first piece; the reactor sends the rest."""
        pieces = (LARGE, b"second", b"third")
        self.ask(*pieces)
        got = bytearray()
        while not got.endswith(pieces[-1]):
            try:
                got += self.client.recv(1 << 20)
            except BlockingIOError:
                self.transport.doWrite()
        self.assertEqual(b"".join(pieces), got.partition(b"\r\n\r\n")[2])
