"""Adoption: bytes that are in the store already, as they are or recompressed."""

from __future__ import annotations

from unittest.mock import patch

from attrs import evolve

from ncps.cache.answers import Outcome
from ncps.cache.nar.adopt import LARGEST_EXCESS, LOOKED_S, UNVOUCHED_S
from ncps.cache.nar.stored import stored_key
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey, opaque_key
from ncps.ports import Stat
from tests.fakes.samples import compressed, sample
from tests.fakes.threads import HeldThreads
from tests.unit.cache.rig import CoreCase

SIZE = 400_000


class AdoptionTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.key = self.sample.key
        self.named = self.sample.conventional
        self.plain = sample("plain", SIZE, "none")
        self.zst = NarKey(self.plain.key.name, "zst")
        self.origin.add(self.sample, self.plain)

    def test_bytes_named_by_their_hash_need_no_narinfo(self) -> None:
        """Bytes that a crash or another program left without a row are served directly."""
        self.store.put(self.named, self.sample.file)
        nar, client = self.successResultOf(self.open(self.named))
        self.assertEqual((Outcome.HIT, self.sample.file), (nar.outcome, client.data))
        record = self.catalog.records[self.named]
        self.assertEqual((True, None), (record.is_stored, record.verified_at))
        self.assertEqual([], self.origin.asked("nar"))

    def test_bytes_that_are_stored_under_another_name_as_well(self) -> None:
        """They are served under the other name; this name gets its row, too."""
        self.store.put(self.named, self.sample.file)
        self.learn(self.sample)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertNotIn(self.named, self.catalog.records)
        self.assertEqual(self.sample.file, self.download(self.named))
        self.assertTrue(self.catalog.records[self.named].is_stored)
        self.assertEqual([], self.origin.asked("nar"))

    def test_other_bytes_under_such_a_name(self) -> None:
        """Bytes that nothing vouches for are not served, and do no harm."""
        self.learn(self.sample)
        self.download(self.key)
        self.store.put(self.named, b"wrong")
        self.assertEqual(self.sample.file, self.download(self.named))
        self.assertNotIn(self.named, self.catalog.records)

    def test_such_a_name_is_looked_at_now_and_then(self) -> None:
        """Hits do not ask the store each time, and do not fail with it."""
        self.learn(self.sample)
        self.download(self.key)
        asked: list[NarKey] = []

        async def stat(key: NarKey) -> Stat | None:
            asked.append(key)
            raise Unavailable("the bucket is away")

        with patch.object(self.store, "stat", stat):
            for _ in range(3):
                self.assertEqual(self.sample.file, self.download(self.named))
            self.assertEqual([self.named], asked)
            self.clock.advance(LOOKED_S)
            self.download(self.named)
        self.assertEqual([self.named, self.named], asked)

    def test_bytes_of_a_known_narinfo_are_verified(self) -> None:
        """With a narinfo the bytes are checked against it, and its sidecar is written."""
        self.learn(self.plain)
        self.store.put(self.plain.key, self.plain.file)
        self.assertEqual(self.plain.file, self.download(self.plain.key))
        self.assertIsNotNone(self.catalog.records[self.plain.key].verified_at)
        self.assertIn(self.plain.digest, self.sidecars.texts)
        self.assertEqual([], self.origin.asked("nar"))

    def test_wrong_bytes_of_a_known_narinfo_are_set_aside(self) -> None:
        """Bytes that are surely wrong go into quarantine, and the right ones are fetched."""
        self.learn(self.sample)
        self.store.put(self.key, b"wrong")
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([(self.key, b"wrong")], self.store.quarantined)

    def test_file_that_is_too_large_is_not_read(self) -> None:
        """A file that is too large for its NAR is not the right one, and is not read."""
        self.learn(self.sample)
        huge = bytes(2 * SIZE + LARGEST_EXCESS)
        for where, aside in ((self.named, []), (self.key, [(self.key, huge)])):
            self.store.put(where, huge)
            self.assertEqual(self.sample.file, self.download(self.key))
            self.assertNotIn(len(huge), [body.size for body in self.store.bodies])
            self.assertEqual(aside, self.store.quarantined)
            del self.store.objects[self.key]
            self.get(self.catalog.mark_missing(self.key))
            self.narinfos.changed(self.key)
            self.store.objects.pop(self.named, None)

    def test_bytes_without_a_voucher_are_left_alone(self) -> None:
        """A NAR may have several names: without a narinfo, no bytes count as wrong."""
        variant = opaque_key("xz", self.sample.narinfo.nar_hash, 1)
        self.store.put(variant, self.sample.file)
        for _ in range(2):
            self.failureResultOf(self.open(variant), NotFound)
        self.assertEqual([], self.store.quarantined)
        self.assertEqual(2, len(self.store.bodies))  # read as a file, and as a NAR
        self.clock.advance(UNVOUCHED_S)
        self.failureResultOf(self.open(variant), NotFound)
        self.assertEqual(4, len(self.store.bodies))

    def test_bytes_named_by_their_nar_need_no_narinfo(self) -> None:
        """If the catalog was lost, the name of the file is the hash of the NAR inside."""
        for one in (self.sample, self.plain, sample("zstd", SIZE, "zstd")):
            self.store.put(one.key, one.file)
            nar, client = self.successResultOf(self.open(one.key))
            self.successResultOf(client.done)
            self.assertEqual((Outcome.HIT, one.file), (nar.outcome, client.data))
        self.assertEqual(self.sample.narinfo.nar_hash, self.catalog.records[self.key].nar_hash)
        self.assertEqual([], self.origin.asked("nar"))

    def test_bytes_that_cannot_be_verified_are_left_alone(self) -> None:
        """A compression that we cannot read is no proof of wrong bytes."""
        self.vetting = evolve(self.vetting, trusted=())  # otherwise its narinfo is refused
        self.restart()
        odd = self.sample.altered(file_hash=None, compression="lzip")
        self.origin.add(odd)
        self.learn(odd)
        self.store.put(odd.key, self.sample.file)
        self.failureResultOf(self.open(odd.key), Corrupt)
        self.assertEqual([], self.store.quarantined)

    def test_name_that_is_no_hash(self) -> None:
        """An object under an impossible name is not served."""
        odd = NarKey("z" * 52, "xz")
        self.store.put(odd, b"x")
        self.failureResultOf(self.open(odd), NotFound)
        self.assertEqual([], self.store.bodies)

    def test_store_that_is_unsure(self) -> None:
        """A store that does not answer is no reason to fetch."""
        self.store.failing = Unavailable("EIO")
        self.failureResultOf(self.open(self.key), Unavailable)
        self.assertEqual([], self.origin.log)

    def test_many_clients_verify_once(self) -> None:
        """Concurrent clients share one reading of the bytes."""
        held = self.threads = HeldThreads()
        self.restart()
        self.store.put(self.named, self.sample.file)
        opening = [self.open(self.named) for _ in range(5)]
        held.release()
        for one in opening:
            self.assertEqual(self.sample.file, self.successResultOf(one)[1].data)
        self.assertEqual(1 + 5, len(self.store.bodies))

    def test_object_that_vanishes_while_it_is_looked_at(self) -> None:
        """If the object disappears before it is read, the request is a miss."""
        for last in (1, 2, 3):
            self.setUp()
            self.store.put(self.named, self.sample.file)
            self.vanish_after(last)
            self.assertEqual(self.sample.file, self.download(self.named))
            self.assertEqual(1, len(self.origin.asked("nar")))

    def test_right_bytes_are_served_though_they_cannot_be_recorded(self) -> None:
        """A database that accepts no writes for a while keeps no client from stored bytes."""
        self.store.put(self.named, self.sample.file)

        async def locked(*_args: object) -> None:
            raise Unavailable("the database is locked")

        with patch.object(self.catalog, "mark_stored", locked):
            for _ in range(2):
                nar, client = self.successResultOf(self.open(self.named))
                self.assertEqual((Outcome.HIT, self.sample.file), (nar.outcome, client.data))
        self.assertEqual({}, self.catalog.records)
        self.download(self.named)
        self.assertTrue(self.catalog.records[self.named].is_stored)
        self.assertEqual([], self.origin.asked("nar"))

    def vanish_after(self, looks: int) -> None:
        stat, seen = self.store.stat, []

        async def vanishing(key: NarKey) -> Stat | None:
            found = await stat(key)
            seen.append(key)
            if len(seen) == looks:
                del self.store.objects[self.named]
            return found

        self.patch(self.store, "stat", vanishing)

    # Trees of the Go program, which keep X.nar as X.nar.zst

    def recompressed(self, data: bytes | None = None) -> None:
        self.learn(self.plain)
        self.store.put(self.zst, compressed(self.plain.nar) if data is None else data)

    def test_recompressed_nar_is_taken_over(self) -> None:
        """An uncompressed NAR that is kept as zstd is served uncompressed, whole and in part."""
        self.recompressed()
        nar, client = self.successResultOf(self.open(self.plain.key))
        self.successResultOf(client.done)
        self.assertEqual((self.plain.nar, SIZE), (client.data, nar.size))
        part = self.client(self.plain.key, 200_000, 200_010)
        self.successResultOf(part.done)
        self.assertEqual(self.plain.nar[200_000:200_010], part.data)
        self.assertEqual([], self.origin.asked("nar"))
        record = self.catalog.records[self.plain.key]
        self.assertEqual(("zstd", self.zst), (record.encoding, stored_key(record)))
        self.assertEqual(len(self.store.objects[self.zst]), record.stored_size)

    def test_recompressed_nar_that_is_wrong(self) -> None:
        """Wrong bytes in a foreign tree stay there, and the right ones are fetched."""
        for data in (compressed(b"other"), compressed(self.plain.nar)[:-5]):
            self.setUp()
            self.recompressed(data)
            self.assertEqual(self.plain.file, self.download(self.plain.key))
            self.assertEqual([], self.store.quarantined)

    def test_recompressed_nar_that_is_damaged_later(self) -> None:
        """The damaged object itself is set aside, not one under the NAR's own name."""
        self.recompressed()
        self.download(self.plain.key)
        self.store.objects[self.zst] = b"truncated"
        self.assertEqual(self.plain.file, self.download(self.plain.key))
        self.assertEqual([(self.zst, b"truncated")], self.store.quarantined)
        self.assertEqual(self.plain.file, self.store.objects[self.plain.key])
