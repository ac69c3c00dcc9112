"""A late answer leaves without another turn of the reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from ncps.web.fast.transport import TcpTransport, send_written


class SentAtOnceTests(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.client = socket.socketpair()
        for end in (ours, self.client):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.reactor: Any = MemoryReactor()
        protocol: Any = Protocol()
        nobody: Any = None
        self.transport = TcpTransport(ours, protocol, ("127.0.0.1", 1), nobody, 0, self.reactor)

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
