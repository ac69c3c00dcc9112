"""NARs kept in another encoding than they are served in."""

from __future__ import annotations

from ncps.cache.served import DecodedBody
from ncps.codec import encoder
from ncps.errors import Corrupt
from tests.fakes.samples import sample
from tests.fakes.stores import MemoryBody
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.cache.rig import Client, CoreCase

SIZE = 400_000


def packed(data: bytes, compression: str = "zstd") -> bytes:
    maker = encoder(compression)
    return maker.feed(data) + maker.finish()


class DecodedBodyTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = sample("x", SIZE, "none").nar

    def read(self, start: int, stop: int | None, data: bytes | None = None) -> Client:
        inner = MemoryBody(packed(self.data) if data is None else data)
        self.body = DecodedBody(inner, InlineThreads(), "zstd", start, stop)
        client = Client(self.body)
        self.assertTrue(inner.is_closed)
        return client

    def test_any_part(self) -> None:
        """Every range of what is encoded comes exactly."""
        for start, stop in (
            (0, None),
            (0, SIZE),
            (0, 1),
            (7, 7),
            (131_072, 131_073),
            (SIZE - 1, SIZE),
            (5, None),
        ):
            client = self.read(start, stop)
            self.successResultOf(client.done)
            self.assertEqual(self.data[start:stop], client.data)
            self.assertEqual(None if stop is None else stop - start, self.body.size)
        self.assertIsNone(self.body.segment())

    def test_truncated_or_short_is_corrupt(self) -> None:
        """What is not all there is an error, not an early end."""
        self.failureResultOf(self.read(0, None, packed(self.data)[:-9]).done, Corrupt)
        self.failureResultOf(self.read(0, SIZE + 1).done, Corrupt)

    def test_reactor_is_free_while_bytes_are_skipped(self) -> None:
        """A range at the far end of a big NAR does not keep everybody else waiting."""
        held = HeldThreads()
        body = DecodedBody(MemoryBody(packed(self.data)), held, "zstd", SIZE - 1, SIZE)
        client = Client(body)
        turns = 0
        while len(held):
            self.assertNoResult(client.done)
            held.release(1)
            turns += 1
        self.successResultOf(client.done)
        self.assertGreaterEqual(turns, SIZE // (256 * 1024))
