"""NARs kept in another encoding than they are served in, and NARs kept where clients can go."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.nar.served import DecodedBody, locate_stored
from ncps.codec import encoder
from ncps.errors import Corrupt, Unavailable
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


class ElsewhereTests(CoreCase):
    """Clients are sent to where the store says that the bytes are."""

    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.origin.add(self.sample)
        self.learn(self.sample)
        self.key = self.sample.key
        self.download(self.key)
        self.store.elsewhere = "https://s3.example/"

    def location(self) -> str | None:
        return self.get(self.get(self.nars.open(self.key)).location())

    def test_stored_nar_has_a_location(self) -> None:
        """One request finds out that it is there, and moves no byte of it."""
        self.store.bodies.clear()
        self.assertEqual(f"https://s3.example/{self.key.file_name}", self.location())
        self.assertEqual([0], [body.size for body in self.store.bodies])
        self.store.elsewhere = ""
        self.assertIs(None, self.location())

    def test_arriving_nar_has_none(self) -> None:
        """While it arrives, its bytes are only here."""
        other = sample("y", SIZE)
        self.origin.add(other)
        self.learn(other)
        nar = self.get(self.nars.open(other.key))
        self.assertIs(None, self.get(nar.location()))

    def test_nobody_is_sent_to_lost_or_damaged_bytes(self) -> None:
        """Then they are to be had here, where they are fetched again."""
        for damage in (lambda: self.store.objects.clear(), lambda: self.store.put(self.key, b"x")):
            damage()
            nar = self.get(self.nars.open(self.key))
            self.assertIs(None, self.get(nar.location()))
            self.assertEqual(self.sample.file, self.download(self.key))

    def test_store_that_cannot_tell_sends_nobody_away(self) -> None:
        """The client is told to come back."""
        nar = self.get(self.nars.open(self.key))
        self.store.failing = Unavailable("away")
        self.refused(nar.location(), Unavailable)
        self.store.failing = None

    def test_bytes_of_another_encoding_are_to_be_had_here(self) -> None:
        """What lies in the store is not what the URL stands for."""
        record = evolve(self.catalog.records[self.key], encoding="zstd", compression="none")
        self.assertIs(None, self.get(locate_stored(self.store, record)))
