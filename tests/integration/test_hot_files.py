"""Stored NARs that the connection sends by itself, on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from threading import Event
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from ncps.storage.directory_body import LocalBody
from ncps.web.fast import file_turn
from ncps.web.fast.hot_nars import HotNar
from tests.integration import test_sent_files
from tests.integration.test_sent_files import DEADLINE_S, KEY, SIZE, FileNar, read_answer
from tests.unit.web.wire import parse_response


def socket_of(dressed: socket.socket) -> socket.socket:
    """Return the same socket without encryption."""
    return socket.socket(fileno=os.dup(dressed.fileno()))


def drop(dressed: socket.socket, count: int) -> None:
    """Read bytes below all encryption."""
    with socket_of(dressed) as raw:
        raw.settimeout(DEADLINE_S)
        while count:
            count -= len(raw.recv(min(count, 65536)))


class HotFileTests(test_sent_files.SentFileTests):
    """The same tests for a NAR that was sent before, so that the connection sends it itself."""

    hot_bytes = 100_000

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.warm()

    async def warm(self) -> None:
        """Put the answer into memory."""
        self.hot_nars.drop(KEY)
        kept: Deferred[None] = Deferred()
        put = self.hot_nars.put

        def put_and_tell(answer: HotNar) -> None:
            put(answer)
            kept.callback(None)

        self.hot_nars.put = put_and_tell  # type: ignore[method-assign]
        await self.ask()
        await kept
        self.hot_nars.put = put  # type: ignore[method-assign]
        self.cache.asked.clear()

    async def taken(self, size: int) -> int:
        """Ask three times for a NAR of this size; return the number of calls of the cache."""
        self.file.write_bytes(self.content[:size])
        nar = self.cache.nars[KEY] = FileNar(self.file, size)
        await self.warm()

        def talk() -> list[bytes]:
            with self.line() as line:
                answers = []
                for _ in range(3):
                    line.sendall(self.request())
                    answers.append(read_answer(line))
                return answers

        for data in await deferToThread(talk):
            response, rest = parse_response(data)
            self.assertEqual((200, True, b""), (response.status, response.whole, rest))
            self.assertEqual(self.content[:size], response.body)
        self.assertEqual([], nar.complaints)
        return len(self.cache.asked)

    async def test_every_size(self) -> None:
        """The whole file is sent, and nothing after it, several times on one connection."""
        for size in (0, 1, 100_000, 512 * 1024, 512 * 1024 + 1, 2 * 1024 * 1024 + 1, SIZE):
            with self.subTest(size=size):
                self.assertEqual(3 if not size else 0, await self.taken(size))

    async def test_socket_that_takes_a_part(self) -> None:
        """When the socket is full, a request sends the rest, and no byte is sent twice."""
        take = file_turn._taken
        for most in (1, 100, 1_000, 300_000, 700_000):
            places = [most, 0]

            def narrow(socket: Any, parts: Any, places: list[int] = places) -> int:
                """Accept this number of bytes, then none."""
                data = b"".join(parts)[: places.pop(0)]
                return take(socket, [data]) if data else 0

            self.patch(file_turn, "_taken", narrow)
            with self.subTest(most=most):
                response, rest = parse_response(await self.ask())
                self.assertEqual((True, b""), (response.whole, rest))
                self.assertEqual(self.content, response.body)
        self.assertEqual([], self.cache.asked)

    async def test_socket_that_takes_nothing(self) -> None:
        """The first head is the one that is sent, because encryption has begun."""
        hot = self.hot_nars.find(f"GET /{KEY.url}".encode())
        assert hot is not None
        # The page would give another head.
        self.hot_nars.put(evolve(hot, head=b"X-Note: offered\r\n" + hot.head))
        offered, filled = Event(), 0
        take = file_turn._taken

        def taken(server: Any, parts: Any) -> int:
            """Fill the socket below the encryption before the first write."""
            nonlocal filled
            with socket_of(server) as raw, contextlib.suppress(BlockingIOError):
                while not offered.is_set():
                    filled += raw.send(bytes(65536))
            count = take(server, parts)
            offered.set()
            return count

        def talk() -> bytes:
            with self.line() as line:
                line.sendall(self.request("Range: bytes=0-0\r\n"))
                answer = read_answer(line)
                line.sendall(self.request())
                if not offered.wait(DEADLINE_S):
                    return answer
                drop(line, filled)
                return read_answer(line)

        self.patch(file_turn, "_taken", taken)
        response, rest = parse_response(await deferToThread(talk))
        self.assertEqual("offered", response.headers.get("x-note"))
        self.assertEqual((True, b""), (response.whole, rest))
        self.assertEqual(self.content, response.body)

    async def test_no_byte_is_sent_twice_if_sending_fails(self) -> None:
        """If the number of sent bytes is unknown, nothing more is sent."""
        take = file_turn._taken

        def broken(socket: Any, parts: Any) -> int:
            take(socket, parts)
            raise MemoryError

        self.patch(file_turn, "_taken", broken)
        response, _ = parse_response(await self.ask())
        self.flushLoggedErrors(MemoryError)
        self.assertFalse(response.whole)
        self.assertTrue(self.content.startswith(response.body))

    async def test_changed_file_is_asked_for(self) -> None:
        """After a change of the file between two pieces the connection sends no more of it."""
        read, places = os.preadv, [1024 * 1024]

        def preadv(file: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            if offset in places:
                places.clear()
                with self.file.open("r+b") as out:
                    out.seek(offset)
                    out.write(bytes(100))
            return read(file, buffers, offset, flags)

        nar = self.cache.nars[KEY]
        assert isinstance(nar, FileNar)
        opened = []
        body = nar.body

        async def body_seen(start: int = 0, stop: int | None = None) -> LocalBody:
            opened.append(start)
            self.file.write_bytes(self.content)  # the right bytes again
            return await body(start, stop)

        self.patch(nar, "body", body_seen)
        await self.warm()
        opened.clear()
        self.patch(os, "preadv", preadv)
        response, _ = parse_response(await self.ask())
        self.assertEqual([1024 * 1024], opened)
        self.assertEqual((True, self.content), (response.whole, response.body))
