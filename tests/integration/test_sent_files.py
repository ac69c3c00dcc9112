"""Stored NARs on real sockets: from the file to the socket, with all kinds of clients."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread
from twisted.python import log
from twisted.trial.unittest import TestCase

from ncps.aio.unchanged_file import UnchangedFile
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.settings.schema.server import ServerSettings
from ncps.storage.calls import Calls
from ncps.storage.directory_body import LocalBody
from ncps.web.fast import transport
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.hot_nars import HotNars
from ncps.web.fast.transport import _Piece, adopt
from ncps.web.site import NcpsSite
from tests.fakes.cache import StubCache, StubNar
from tests.fakes.threads import InlineThreads
from tests.unit.web.wire import parse_response, routes_for

reactor: Any = _reactor
KEY = NarKey("0" * 52, "xz")
FAR = 3 * 1024 * 1024  # more than is sent immediately
SIZE = 5 * 1024 * 1024 + 17
DEADLINE_S = 20.0
P = ParamSpec("P")
R = TypeVar("R")


class FileNar(StubNar):
    """A stored NAR in a file; `size` is that of the record, and the file's size may differ."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(KEY, [], size=size)
        self._path, self._length = path, size
        self.calls = Calls(InlineThreads(), is_local=True)
        self.reopen = self._reopened

    def _reopened(self) -> UnchangedFile | None:
        fd = os.open(self._path, os.O_RDONLY)
        if os.fstat(fd).st_size == self._length:
            return UnchangedFile(fd)
        os.close(fd)
        return None

    async def body(self, start: int = 0, stop: int | None = None) -> LocalBody:  # type: ignore[override]
        file = UnchangedFile(os.open(self._path, os.O_RDONLY))
        end = self._length if stop is None else stop
        return LocalBody(file=file, name="a NAR", start=start, stop=end, calls=self.calls)


class CountedThreads(InlineThreads):
    calls = 0

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.calls += 1
        return await super().run(function, *args, **kwargs)


def is_open(path: Path) -> bool:
    """Return whether this process has the file open."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names come and go
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
    return str(path.absolute()) in found


class SentFilesCase(TestCase):
    """A site on a real port, with one NAR."""

    timeout = 60
    hot_bytes = 0

    def setUp(self) -> None:
        self.content = os.urandom(SIZE)
        self.file = Path(self.mktemp())
        self.file.write_bytes(self.content)
        self.cache = StubCache()
        self.cache.nars[KEY] = FileNar(self.file, SIZE)
        self.metrics = Metrics()
        hot, self.hot_nars = HotNarInfos(100_000), HotNars(self.hot_bytes)
        self.site = NcpsSite(
            routes_for(self.cache, self.metrics, hot, hot_nars=self.hot_nars),
            clock=reactor,
            metrics=self.metrics,
            limits=ServerSettings(write_stall_timeout_s=1.0),
            hot=hot,
            access_log=lambda _: None,
        )
        self.site.linger_s, self.site.hot_nars = 0.2, self.hot_nars
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.prepare(self.port)

    def prepare(self, port: Any) -> None:
        """Make a listening port serve as that of the daemon."""
        adopt(port)

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.port.stopListening()
        await self.site.drain(1.0)
        self.assertFalse(is_open(self.file), "left open")

    def line(self) -> socket.socket:
        """Open a connection with a small window; the test reads it."""
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.settimeout(DEADLINE_S)
        line.connect(("127.0.0.1", self.port.getHost().port))
        return self.dressed(line)

    def dressed(self, line: socket.socket) -> socket.socket:
        """Return a client protocol for the port."""
        return line

    @property
    def served(self) -> float:
        """Return the counted bytes of NARs."""
        self.site.ledger.settle()
        labels = {"route": "/nar/{file}"}
        return self.metrics.registry.get_sample_value("ncps_served_bytes_total", labels) or 0.0

    def request(self, headers: str = "", close: bool | None = None) -> bytes:
        close = not self.hot_bytes if close is None else close
        end = "Connection: close\r\n" if close else ""
        return f"GET /{KEY.url} HTTP/1.1\r\nHost: x\r\n{headers}{end}\r\n".encode()

    async def ask(self, headers: str = "") -> bytes:
        def talk() -> bytes:
            with self.line() as line:
                line.sendall(self.request(headers))
                return read_answer(line)

        data: bytes = await deferToThread(talk)
        return data


class SentFileTests(SentFilesCase):
    async def test_whole_and_parts(self) -> None:
        """Every byte arrives, from any offset, and is counted."""
        before = self.served
        response, rest = parse_response(await self.ask())
        self.assertEqual((200, True, b""), (response.status, response.whole, rest))
        self.assertEqual(self.content, response.body)
        for start, stop in ((0, 1), (300_000, 4_000_000), (SIZE - 5, SIZE)):
            data = await self.ask(f"Range: bytes={start}-{stop - 1}\r\n")
            response, _ = parse_response(data)
            self.assertEqual((206, True), (response.status, response.whole))
            self.assertEqual(self.content[start:stop], response.body)
        self.assertEqual(SIZE + 1 + 3_700_000 + 5, self.served - before)

    async def test_no_byte_is_sent_twice_for_want_of_memory(self) -> None:
        """If the number of sent bytes is unknown, nothing more is sent."""
        failures = [MemoryError()]

        class Piece(_Piece):
            """Once it cannot record how many bytes were sent."""

            def __setattr__(self, name: str, value: Any) -> None:
                if name == "offset" and hasattr(self, "left") and value > FAR and failures:
                    raise failures.pop()
                super().__setattr__(name, value)

        def err(*_: object, **__: object) -> None:
            raise MemoryError

        self.patch(transport, "_Piece", Piece)
        self.patch(log, "err", err)
        response, _ = parse_response(await self.ask())
        self.assertEqual([], failures)
        self.flushLoggedErrors(MemoryError)
        self.assertFalse(response.whole)
        self.assertTrue(self.content.startswith(response.body))

    async def test_one_connection_after_another(self) -> None:
        """On one connection the next answer begins after the last byte of the one before."""

        def talk() -> bytes:
            with self.line() as line:
                line.sendall(self.request(close=False))
                first = line.recv(1)
                line.sendall(self.request(close=False) + self.request(close=True))
                return first + read_all(line)

        rest = await deferToThread(talk)
        for _ in range(3):
            response, rest = parse_response(rest)
            self.assertTrue(response.whole)
            self.assertEqual(self.content, response.body)
        self.assertEqual(b"", rest)

    async def test_file_shorter_than_it_was(self) -> None:
        """An answer that cannot be completed is cut, and the client sees that."""
        os.truncate(self.file, SIZE - 1_000_000)
        response, _ = parse_response(await self.ask())
        self.assertFalse(response.whole)
        self.assertEqual(self.content[: len(response.body)], response.body)
        nar = self.cache.nars[KEY]
        assert isinstance(nar, StubNar)
        self.assertEqual(["a stored file is shorter than it was"], nar.complaints)

    async def test_file_cut_off_while_it_is_sent(self) -> None:
        """The client gets the bytes of the file before the cut, though the kernel has more."""

        def talk() -> bytes:
            plain = socket.create_connection(("127.0.0.1", self.port.getHost().port), DEADLINE_S)
            with self.dressed(plain) as line:
                line.sendall(self.request())
                first = line.recv(1000)
                time.sleep(0.2)  # the buffers fill
                os.truncate(self.file, 300_001)
                return read_answer(line, first)

        response, _ = parse_response(await deferToThread(talk))
        self.assertGreater(len(response.body), 300_001)
        self.assertEqual(self.content[: len(response.body)], response.body)

    async def test_file_that_cannot_be_read(self) -> None:
        """An answer is cut where the disk has lost bytes, and the core gets the error."""
        read, at = os.preadv, 3_000_000

        def preadv(file: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            if offset >= at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(file, [buffers[0][: at - offset]], offset, flags)

        self.patch(os, "preadv", preadv)
        response, _ = parse_response(await self.ask())
        self.assertFalse(response.whole)
        self.assertEqual(self.content[:at], response.body)
        nar = self.cache.nars[KEY]
        assert isinstance(nar, StubNar)
        self.assertEqual(["a stored file cannot be read: Input/output error"], nar.complaints)

    async def test_file_that_is_not_in_memory(self) -> None:
        """Threads read bytes that are not in memory, and every byte is sent once."""
        read, threads, before = os.preadv, CountedThreads(), self.served
        nar = self.cache.nars[KEY]
        assert isinstance(nar, FileNar)
        nar.calls = Calls(threads, is_local=True)

        def preadv(file: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            if offset % 1_000_000 < 200_000 or offset > FAR:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return read(file, [buffers[0][: 1_000_000 - offset % 1_000_000]], offset, flags)

        self.patch(os, "preadv", preadv)
        for start in (0, 300_000):
            response, _ = parse_response(await self.ask(f"Range: bytes={start}-\r\n"))
            self.assertTrue(response.whole)
            self.assertEqual(self.content[start:], response.body)
        self.assertGreater(threads.calls, 10)
        self.assertEqual(2 * SIZE - 300_000, self.served - before)

    async def test_client_that_leaves_and_client_that_sleeps(self) -> None:
        """Neither keeps the file open: the one is gone, the other is cut off."""

        def leave() -> None:
            with self.line() as line:
                line.sendall(self.request())
                line.recv(1000)

        def sleep() -> int:
            with self.line() as line:
                line.sendall(self.request())
                end = time.monotonic() + DEADLINE_S
                while self.reached("server-write-stall-timeout") == 0 and time.monotonic() < end:
                    time.sleep(0.05)
                try:
                    return len(read_answer(line))
                except ConnectionResetError:
                    return 0

        await deferToThread(leave)
        self.assertLess(await deferToThread(sleep), SIZE)

    def reached(self, limit: str) -> float:
        value = self.metrics.registry.get_sample_value("ncps_limit_reached_total", {"limit": limit})
        return value or 0.0


def read_all(line: socket.socket) -> bytes:
    pieces = []
    while piece := line.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_answer(line: socket.socket, data: bytes = b"") -> bytes:
    """Read one answer with a length, or its beginning; `data` was read before."""
    while b"\r\n\r\n" not in data and (piece := line.recv(65536)):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) - len(body)
    pieces = [data]
    with contextlib.suppress(ConnectionResetError):
        while left > 0 and (piece := line.recv(65536)):
            pieces.append(piece)
            left -= len(piece)
    return b"".join(pieces)
