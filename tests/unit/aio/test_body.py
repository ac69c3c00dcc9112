"""A body that passes on the bytes of another body."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.body import PassedBody


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class PassedBodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.closed: list[str] = []

    def body(self, start: int, total: int | None) -> PassedBody:
        def close() -> None:
            self.closed.append("source")

        return PassedBody(chunks(b"ab", b"c"), close, start=start, total=total)

    def test_chunks_and_size(self) -> None:
        """Chunks stay as they are; the size is that of the rest, if the total is known."""
        body = self.body(7, 10)

        async def read() -> bytes:
            return b"".join([chunk async for chunk in body])

        self.assertEqual(b"abc", self.successResultOf(Deferred.fromCoroutine(read())))
        self.assertEqual((7, 10, 3), (body.start, body.total, body.size))
        self.assertIsNone(self.body(7, None).size)
        self.assertIsNone(body.segment())

    def test_the_source_is_closed_once_and_first(self) -> None:
        """A second `close` does nothing, also if one body passes on another."""
        body = self.body(7, 10)
        outer = PassedBody.over(body, aiter(body), lambda: self.closed.append("watch"))
        self.assertEqual((7, 10), (outer.start, outer.total))
        outer.close()
        outer.close()
        body.close()
        self.assertEqual(["source", "watch"], self.closed)
