"""A client on a real socket, and NARs larger than its buffers."""

from __future__ import annotations

from typing import Any, Self

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from ncps.nix.narurl import NarKey
from tests.fakes.cache import ScriptedBody, StubNar
from tests.unit.web.wire import Response, parse_response

reactor: Any = _reactor

KEY = NarKey("0" * 52, "xz")
CHUNK = bytes(range(256)) * 1024


class Client(Protocol):
    """Records the received bytes until the connection ends, and the reason of the end."""

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.received = 0
        self.keep = True
        self.ended: Deferred[BaseException] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.keep:
            self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self.ended.callback(reason.value)

    def ask(self, path: bytes, *lines: bytes, method: bytes = b"GET") -> None:
        head = b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), b"Host: x", *lines])
        self.transport.write(head + b"\r\n\r\n")

    @property
    def response(self) -> Response:
        return parse_response(bytes(self.data))[0]


class EndlessBody(ScriptedBody):
    """The same chunk many times."""

    def __init__(self, count: int) -> None:
        super().__init__([], 0, None)
        self._count = count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._count:
            raise StopAsyncIteration
        self._count -= 1
        self.delivered += len(CHUNK)
        return CHUNK


class LargeNar(StubNar):
    """A NAR far larger than all buffers between server and client."""

    def __init__(self, count: int) -> None:
        super().__init__(KEY, [], size=count * len(CHUNK))
        self._count = count

    async def body(self, start: int = 0, stop: int | None = None) -> ScriptedBody:
        body = EndlessBody(self._count)
        self.bodies.append(body)
        return body
