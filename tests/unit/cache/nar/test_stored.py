"""NARs that are stored in another encoding than served, and NARs at a URL of the store."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.nar.stored import DecodedBody, locate_stored
from ncps.errors import Corrupt, Unavailable
from tests.fakes.client import Client
from tests.fakes.samples import compressed, sample
from tests.fakes.stores import MemoryBody
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.cache.rig import CoreCase

SIZE = 400_000


class DecodedBodyTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = sample("x", SIZE, "none").nar

    def read(self, start: int, stop: int | None, data: bytes | None = None) -> Client:
        inner = MemoryBody(compressed(self.data) if data is None else data)
        self.body = DecodedBody(inner, InlineThreads(), "zstd", start, stop)
        client = Client(self.body)
        self.assertTrue(inner.is_closed)
        return client

    def test_any_part(self) -> None:
        """Each range of an encoded NAR has the right bytes."""
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
        """A NAR with missing bytes is an error, not an early end."""
        self.failureResultOf(self.read(0, None, compressed(self.data)[:-9]).done, Corrupt)
        self.failureResultOf(self.read(0, SIZE + 1).done, Corrupt)

    def test_reactor_is_free_while_bytes_are_skipped(self) -> None:
        """A range at the far end of a large NAR does not make other clients wait."""
        held = HeldThreads()
        body = DecodedBody(MemoryBody(compressed(self.data)), held, "zstd", SIZE - 1, SIZE)
        client = Client(body)
        turns = 0
        while len(held):
            self.assertNoResult(client.done)
            held.release(1)
            turns += 1
        self.successResultOf(client.done)
        self.assertGreaterEqual(turns, SIZE // (256 * 1024))


class ElsewhereTests(CoreCase):
    """Clients are sent to the URL that the store has for the bytes."""

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
        """One request finds out that the NAR is there, without moving a byte of it."""
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

    def test_no_client_is_sent_to_lost_or_damaged_bytes(self) -> None:
        """Clients are not sent to lost or damaged bytes: these are fetched again here."""
        for damage in (lambda: self.store.objects.clear(), lambda: self.store.put(self.key, b"x")):
            damage()
            nar = self.get(self.nars.open(self.key))
            self.assertIs(None, self.get(nar.location()))
            self.assertEqual(self.sample.file, self.download(self.key))

    def test_store_that_is_unsure_sends_no_client_away(self) -> None:
        """If the store cannot tell, the client must come back."""
        nar = self.get(self.nars.open(self.key))
        self.store.failing = Unavailable("away")
        self.refused(nar.location(), Unavailable)
        self.store.failing = None

    def test_bytes_of_another_encoding_are_to_be_had_here(self) -> None:
        """The bytes in the store are not those of the URL."""
        record = evolve(self.catalog.records[self.key], encoding="zstd", compression="none")
        self.assertIs(None, self.get(locate_stored(self.store, record)))
