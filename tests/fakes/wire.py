"""Connections in memory: what a client sends can be read, what a server says can be written."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure


class Line(StringTransport):
    """The server's end of one connection; the client hears of its end in the next turn."""

    def __init__(self, wire: Wire, host: str = "127.0.0.1", port: int = 80) -> None:
        kind = IPv6Address if ":" in host else IPv4Address
        super().__init__(peerAddress=kind("TCP", host, port))
        self.protocol: IProtocol | None = None
        self.is_up = True
        self._wire = wire

    @property
    def sent(self) -> bytes:
        """Return the bytes that the client has sent since the last call."""
        data: bytes = self.value()
        self.clear()
        return data

    def say(self, data: bytes) -> None:
        """Send to the client, unless the connection is gone."""
        if self.is_up:
            assert self.protocol is not None
            self.protocol.dataReceived(data)

    def answer(self, status: str = "200 OK", body: bytes = b"", **headers: str) -> None:
        """Send a whole answer with Content-Length unless another is given."""
        fields = {"content_length": str(len(body)), **headers}
        lines = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
        self.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def end(self, reason: Exception | None = None) -> None:
        """End the connection: cleanly, or as the reason says."""
        if self.is_up:
            self.is_up = False
            assert self.protocol is not None
            lost = Failure(reason or error.ConnectionDone())
            self._wire.callLater(0, self.protocol.connectionLost, lost)

    def cut(self) -> None:
        """Reset the connection."""
        self.end(error.ConnectionLost("reset by peer"))
        self._wire.advance(0)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing: what TLS asks of a connection of TCP."""

    def loseConnection(self) -> None:
        super().loseConnection()
        self.end()

    def abortConnection(self) -> None:
        super().abortConnection()
        self.end(error.ConnectionAborted())


class Wire(MemoryReactorClock):
    """A reactor whose outgoing connections end in `Line`s."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._done: set[int] = set()

    @property
    def attempts(self) -> int:
        """How many connections were begun."""
        return len(self.tcpClients)

    @property
    def pending(self) -> int:
        """How many connections wait to be accepted or refused."""
        return len(self._pending())

    def _pending(self) -> list[int]:
        return [
            number
            for number, connector in enumerate(self.connectors)
            if number not in self._done and not connector.stoppedConnecting
        ]

    def _next(self) -> Any:
        """Return host, port, factory and so on of the connection that waits for longest."""
        number = self._pending()[0]
        self._done.add(number)
        return self.tcpClients[number]

    def accept(self) -> Line:
        """Let the next connection come about."""
        host, port, factory, *_ = self._next()
        line = Line(self, host, port)
        line.protocol = factory.buildProtocol(None)
        assert line.protocol is not None
        line.protocol.makeConnection(line)
        self.lines.append(line)
        return line

    def refuse(self, reason: Exception | None = None) -> None:
        """Let the next connection fail."""
        refused = reason or error.ConnectionRefusedError()
        self._next()[2].clientConnectionFailed(None, Failure(refused))
        self.advance(1)  # other addresses would be tried
