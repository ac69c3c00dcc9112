"""A strict client of HTTP/1.1 that distinguishes complete answers from cut ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from attrs import define, field

SILENCE_S = 60.0
"""Seconds without a byte after which an answer counts as hung."""

PIECE = 64 * 1024


class Cut(Exception):
    """The answer was visibly cut, or never began."""


class Refused(Exception):
    """The connection was refused."""


class Hung(Exception):
    """Nothing came for SILENCE_S."""


class Garbled(Exception):
    """The answer is not HTTP."""


@define(eq=False)
class Answer:
    """The head of an answer, and its body while it comes.

    :ivar is_complete: whether the body has ended as its framing says.
    """

    status: int
    headers: dict[str, str]
    has_body: bool
    _reader: asyncio.StreamReader
    is_complete: bool = field(default=False, init=False)

    @property
    def may_go_on(self) -> bool:
        """Return whether another request may follow on the same connection."""
        return self.is_complete and self.headers.get("connection", "").lower() != "close"

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises Cut if it ends too early, Hung if nothing comes."""
        length = self.headers.get("content-length")
        if not self.has_body:
            pass
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            async for piece in self._chunks():
                yield piece
        elif length is not None:
            async for piece in self._counted(int(length)):
                yield piece
        else:
            while piece := await _some(self._reader.read(PIECE)):
                yield piece
        self.is_complete = True

    async def _counted(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await _some(self._reader.read(min(PIECE, left)))
            if not piece:
                raise Cut(f"{left} bytes are missing")
            left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int((await _some(self._reader.readuntil(b"\r\n"))).split(b";")[0], 16)
            if not size:
                await _some(self._reader.readuntil(b"\r\n"))
                return
            async for piece in self._counted(size):
                yield piece
            await _some(self._reader.readexactly(2))

    async def whole(self) -> bytes:
        """Return the whole body. Raises Cut and Hung as `pieces` does."""
        return b"".join([piece async for piece in self.pieces()])


class Connection:
    """Keeps one connection to the daemon open while every answer is read to its end.

    :param is_slow: ask the kernel for a small receive buffer.
    """

    def __init__(self, port: int, *, is_slow: bool = False) -> None:
        self._port = port
        self._is_slow = is_slow
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._last: Answer | None = None

    async def request(
        self, target: str, *, method: str = "GET", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request and wait for the head of its answer.

        Raises Refused if the connection is refused, Hung if nothing comes for `SILENCE_S`, Cut if
        the connection breaks before the head has come, Garbled if the answer is not HTTP.
        """
        if self._last is not None and not self._last.may_go_on:
            self.close()
        is_reused = self._streams is not None
        try:
            return await self._once(target, method, headers or {})
        except Cut:
            if not is_reused:
                raise
        return await self._once(target, method, headers or {})  # it was closed

    async def _once(self, target: str, method: str, headers: dict[str, str]) -> Answer:
        reader, writer = self._streams or await self._connect()
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            await writer.drain()
            head = (await _some(reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        except (OSError, Cut) as error:
            self.close()
            raise Cut(f"no answer: {error}") from error
        line, *fields = head[:-4].split("\r\n")
        version, _, rest = line.partition(" ")
        if version not in {"HTTP/1.1", "HTTP/1.0"} or not rest[:3].isdigit():
            raise Garbled(line[:100])
        pairs = (text.partition(":") for text in fields)
        answer = Answer(
            int(rest[:3]),
            {name.strip().lower(): value.strip() for name, _, value in pairs},
            method != "HEAD" and rest[:3] not in {"204", "304"},
            reader,
        )
        self._last = answer
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        plug = socket.socket()
        plug.setblocking(False)
        if self._is_slow:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        try:
            await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", self._port))
        except OSError as error:
            plug.close()
            raise Refused(str(error)) from error
        limit = 8192 if self._is_slow else PIECE
        self._streams = await asyncio.open_connection(sock=plug, limit=limit)
        return self._streams

    @property
    def is_reusable(self) -> bool:
        """Return whether it was used before and may be used again."""
        return self._last is not None and self._last.may_go_on

    @property
    def is_fresh(self) -> bool:
        """Return whether the last answer is complete, so that another request may follow."""
        return self._last is None or self._last.may_go_on

    def close(self) -> None:
        """Close the connection, also before the end of the answer."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = self._last = None


async def _some(coming: object) -> bytes:
    """Await bytes from a stream, with the errors of this module."""
    try:
        async with asyncio.timeout(SILENCE_S):
            with contextlib.suppress(asyncio.LimitOverrunError):
                result = await coming  # type: ignore[misc]
                assert isinstance(result, bytes)
                return result
    except TimeoutError:
        raise Hung(f"nothing for {SILENCE_S:g} s") from None
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Cut(type(error).__name__) from error
    raise Garbled("a head without end")
