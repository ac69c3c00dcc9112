"""The contract of every Body."""

from __future__ import annotations

import os

from ncps.ports import Body
from tests.contract.running import Contract

DATA = bytes(range(256)) * 2600  # more than two reads of any adapter


async def content(body: Body) -> bytes:
    """Return all bytes of a body, and close it."""
    try:
        return b"".join([chunk async for chunk in body])
    finally:
        body.close()


class BodyContract(Contract):
    async def open_body(self, data: bytes, start: int, stop: int | None) -> Body:
        """Open `data` from `start` to `stop`."""
        raise NotImplementedError

    async def test_the_whole_comes_in_order(self) -> None:
        """A whole object arrives byte for byte, and its size was known before."""
        body = await self.open_body(DATA, 0, None)
        self.assertIn(body.size, (None, len(DATA)))
        self.assertEqual(await content(body), DATA)

    async def test_a_part_comes_exactly(self) -> None:
        """A range has the bytes asked for, at every kind of edge."""
        end = len(DATA)
        for start, stop in [(0, 1), (1, end), (end - 1, None), (300_000, 300_017), (0, end)]:
            body = await self.open_body(DATA, start, stop)
            self.assertIn(body.size, (None, len(DATA[start:stop])))
            self.assertEqual(await content(body), DATA[start:stop])

    async def test_nothing_asked_gives_nothing(self) -> None:
        """A body of an empty range ends immediately."""
        self.assertEqual(await content(await self.open_body(DATA, 17, 17)), b"")
        self.assertEqual(await content(await self.open_body(b"", 0, None)), b"")

    async def test_no_chunk_is_empty_or_huge(self) -> None:
        """Chunks are never empty and never more than a mebibyte: memory stays bounded."""
        body = await self.open_body(DATA, 0, None)
        self.addCleanup(body.close)
        async for chunk in body:
            self.assertTrue(0 < len(chunk) <= 1024 * 1024)

    async def test_closing_early_and_twice_is_fine(self) -> None:
        """A reader may leave between chunks, or before the first one, and close again."""
        body = await self.open_body(DATA, 0, None)
        async for _ in body:
            break
        body.close()
        body.close()
        unread = await self.open_body(DATA, 0, None)
        unread.close()
        unread.close()

    async def test_a_segment_is_the_same_bytes(self) -> None:
        """If a body offers a segment of a file, that segment has the same bytes as iteration."""
        body = await self.open_body(DATA, 100, 5000)
        self.addCleanup(body.close)
        segment = body.segment()
        if segment is not None:
            data = os.pread(segment.fd, segment.length, segment.offset)
            self.assertEqual(data, DATA[100:5000])
