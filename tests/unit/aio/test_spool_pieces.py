"""Segments of a spool: where the bytes for a reader lie in its file."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from ncps.aio.spool_file import AppendedFile
from ncps.aio.spool_reader import HOLD_BACK
from ncps.errors import Unavailable
from ncps.ports import Segment
from tests.unit.aio.spool_case import MIB, SpoolCase, noise


class PieceTests(SpoolCase):
    def test_pieces_say_where_the_same_bytes_are(self) -> None:
        """A connection may copy from the file; held-back bytes are in no segment."""
        data = noise(MIB)
        self.spool.total = len(data)
        found: list[tuple[int, int]] = []
        read: list[bytes] = []

        async def follow() -> None:
            reader = self.spool.reader(100)
            async for piece in reader.pieces():
                assert isinstance(piece, Segment)
                self.assertTrue(piece.is_growing)
                found.append((piece.offset, piece.length))
                read.append(os.pread(piece.fd, piece.length, piece.offset))
            reader.close()

        following = Deferred.fromCoroutine(follow())
        self.put(data[:300_000])
        self.put(data[300_000:])
        self.assertEqual([(100, 299_900), (300_000, MIB - HOLD_BACK - 300_000)], found)
        self.finish()
        self.successResultOf(following)
        self.assertEqual((MIB - HOLD_BACK, HOLD_BACK), found[-1])
        self.assertEqual(data[100:], b"".join(read))

    def test_pieces_of_a_spool_without_a_file_are_bytes(self) -> None:
        """Bytes of a spool without a file are returned as bytes."""
        data = noise(MIB)
        self.spool = self.new(total=len(data), kept=False)
        read: list[bytes] = []

        async def follow() -> None:
            reader = self.spool.reader()
            async for piece in reader.pieces():
                assert isinstance(piece, bytes)
                read.append(piece)
            reader.close()

        following = Deferred.fromCoroutine(follow())
        self.put(data)
        self.finish()
        self.successResultOf(following)
        self.assertEqual(data, b"".join(read))

    def test_a_file_that_became_shorter_is_noticed_by_its_connection(self) -> None:
        """If the file has become shorter, the connection gets an error."""
        data = noise(MIB)
        self.put(data)
        file, into = AppendedFile(self.file.fd), memoryview(bytearray(1000))
        self.assertEqual(1000, file.read_into(into, 5000))
        self.assertEqual(data[5000:6000], bytes(into))
        os.truncate(self.file.path, 5500)
        self.assertEqual(500, file.read_into(into, 5000))
        self.assertEqual(data[5000:5500], bytes(into[:500]))
        for position in (5500, 6000):
            self.assertRaises(Unavailable, file.read_into, into, position)
        self.spool.release()
