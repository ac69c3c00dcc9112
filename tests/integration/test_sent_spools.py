"""Arriving NARs on real sockets: from the growing file to the socket."""

from __future__ import annotations

import os
import socket

from twisted.internet.threads import deferToThread

from ncps.aio.spool import Spool
from ncps.aio.spool_file import AppendedFile
from ncps.aio.spool_reader import HOLD_BACK, SpoolReader
from ncps.errors import Corrupt
from ncps.web.fast import transport
from tests.fakes.cache import StubNar
from tests.fakes.spoolfile import CountedFile
from tests.fakes.threads import InlineThreads
from tests.integration.test_sent_files import (
    KEY,
    SIZE,
    SentFilesCase,
    read_answer,
)
from tests.unit.web.wire import parse_response

HALF = SIZE // 2


class SpooledNar(StubNar):
    """An arriving NAR in a spool."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(KEY, [], size=SIZE)
        self._spool = spool

    async def body(self, start: int = 0, stop: int | None = None) -> SpoolReader:  # type: ignore[override]
        return self._spool.reader(start, stop)


class SentSpoolTests(SentFilesCase):
    def setUp(self) -> None:
        super().setUp()
        self.spooled = CountedFile()
        self.addCleanup(self.spooled.path.unlink, missing_ok=True)
        self.spool = Spool(
            file=lambda: self.spooled, workers=InlineThreads(), digests=(), total=SIZE
        )
        self.cache.nars[KEY] = SpooledNar(self.spool)
        self.copied: list[int] = []
        copied = self.copied

        class Counted(AppendedFile):
            def read_into(self, buffer: memoryview, position: int) -> int | None:
                count = super().read_into(buffer, position)
                copied.append(count or 0)
                return count

        self.patch(transport, "AppendedFile", Counted)

    async def begun(self) -> tuple[socket.socket, bytes]:
        """Ask while half of it has arrived; return the connection, and a part of the answer."""
        await self.spool.write(self.content[:HALF])
        line = self.line()
        self.addCleanup(line.close)
        line.sendall(self.request())

        def some() -> bytes:
            data = b""
            while len(data) < HALF:
                data += line.recv(65536)
            return data

        first: bytes = await deferToThread(some)
        return line, first

    async def ended(self, line: socket.socket, first: bytes) -> bytes:
        response, rest = parse_response(await deferToThread(read_answer, line, first))
        self.assertEqual(b"", rest)
        self.is_whole = response.whole
        return response.body

    async def test_client_follows_the_file(self) -> None:
        """Each byte after the first 64 KiB, which wait with the head, is copied from the file.

        A client that stops reading uses no more of our memory than that.
        """
        line, first = await self.begun()
        await self.spool.write(self.content[HALF:])
        await self.spool.flush()
        self.spool.commit()
        self.spool.release()
        self.assertEqual(self.content, await self.ended(line, first))
        self.assertTrue(self.is_whole)
        self.assertGreater(sum(self.copied), SIZE - 100_000)
        self.assertEqual(SIZE, self.served)

    async def test_file_that_turns_out_wrong(self) -> None:
        """The last bytes of a wrong file are never sent."""
        line, first = await self.begun()
        await self.spool.write(self.content[HALF:])
        await self.spool.flush()
        reading = deferToThread(read_answer, line, first)
        self.spool.fail(Corrupt("wrong"))
        self.spool.release()
        response, _ = parse_response(await reading)
        self.assertFalse(response.whole)
        self.assertLessEqual(len(response.body), SIZE - HOLD_BACK)
        self.assertTrue(self.content.startswith(response.body))

    async def test_file_that_has_lost_bytes(self) -> None:
        """The answer is cut where the bytes end."""
        line, first = await self.begun()
        await self.spool.write(self.content[HALF:-HOLD_BACK])
        os.truncate(self.spooled.path, HALF + 100_000)
        body = await self.ended(line, first)
        self.assertFalse(self.is_whole)
        self.assertTrue(self.content.startswith(body))
        self.spool.release()
