"""The contract of every Catalog: the part about narinfos, and all parts together."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, gatherResults

from ncps.nix.keys import Signature
from ncps.ports import NarRecord, Totals
from tests.contract.catalog_inventory import InventoryContract
from tests.contract.catalog_stored import FenceContract, RecordContract, StoredContract
from tests.contract.running import start
from tests.contract.samples import (
    EARLY,
    digest_of,
    entry,
    hash_of,
    key_of,
    later,
    narinfo,
    path_of,
    record,
    stored,
)


class NarInfoContract(RecordContract):
    """Narinfos and the NAR rows they bring."""

    async def test_an_empty_catalog_knows_nothing(self) -> None:
        """A NAR that was never recorded is absent in every query; to drop it is no error."""
        self.assertIsNone(await self.catalog.narinfo(digest_of(1)))
        self.assertIsNone(await self.catalog.nar(key_of(1)))
        self.assertEqual(await self.catalog.narinfos_of(key_of(1)), [])
        self.assertEqual(await self.catalog.unverified(10, {"xz"}), [])
        self.assertEqual(await self.catalog.totals(), Totals(0, 0, 0))
        self.assertFalse(await self.catalog.forget_narinfo(digest_of(1)))
        self.assertFalse(await self.catalog.forget_nar(key_of(1)))
        await self.catalog.mark_missing(key_of(1))
        self.assertFalse(await self.catalog.mark_verified(stored(1, verified_at=EARLY)))
        self.assertIsNone(await self.catalog.stored_file(hash_of("file 1"), "xz"))
        self.assertFalse(await self.catalog.is_wrong(hash_of("nar 1"), hash_of("file 1"), EARLY))
        await self.catalog.touch({digest_of(1): EARLY}, {key_of(1): EARLY})
        self.assertIsNone(await self.catalog.nar(key_of(1)))

    async def test_a_narinfo_comes_back_as_it_was(self) -> None:
        """Every field of a narinfo and of its NAR's record is kept."""
        await self.catalog.add_narinfo(entry(1), record(1))
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (entry(1), record(1)))
        self.assertEqual(await self.catalog.nar(key_of(1)), record(1))
        self.assertEqual(await self.catalog.narinfos_of(key_of(1)), [entry(1)])

    async def test_a_narinfo_with_little_in_it_comes_back(self) -> None:
        """Optional fields that are missing stay missing."""
        bare = narinfo(
            1,
            file_hash=None,
            file_size=None,
            references=(),
            deriver=None,
            system=None,
            signatures=(),
            ca=None,
        )
        plain = entry(1, narinfo=bare, upstream="", upstream_url="", verified_by="", signed_by="")
        nar = NarRecord(key=key_of(1), compression="xz")
        await self.catalog.add_narinfo(plain, nar)
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (plain, nar))

    async def test_long_texts_come_back_whole(self) -> None:
        """No field is cut, however long its text: URLs, derivers, signatures, many references."""
        long = narinfo(
            1,
            references=tuple(path_of(number) for number in range(2000)),
            signatures=tuple(Signature(f"key-{n}" + "k" * 300, bytes(64)) for n in range(50)),
            ca="text:" + "c" * 5000,
            nar_size=2**63 - 1,
        )
        big = entry(1, narinfo=long, upstream_url="https://example.org/" + "u" * 5000)
        nar = record(1, origin_url=big.upstream_url, nar_size=2**63 - 1)
        await self.catalog.add_narinfo(big, nar)
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (big, nar))

    async def test_the_last_narinfo_counts(self) -> None:
        """A narinfo added again replaces the old one, references and signatures included."""
        await self.catalog.add_narinfo(entry(1), record(1))
        newer = entry(
            1,
            narinfo=narinfo(1, references=(path_of(7),), signatures=(Signature("k", b"2" * 64),)),
            fetched_at=later(60),
            upstream="https://other.example.org",
        )
        for _ in range(2):
            await self.catalog.add_narinfo(newer, record(1))
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0], newer)
        self.assertEqual((await self.catalog.totals()).narinfos, 1)

    async def test_a_new_narinfo_is_added_once(self) -> None:
        """A new path and a new NAR get their rows; the rows of a known path do not change."""
        self.assertTrue(await self.catalog.add_new_narinfo(entry(1), record(1)))
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (entry(1), record(1)))
        newer = entry(1, narinfo=narinfo(1, url=key_of(2).url), fetched_at=later(60))
        self.assertFalse(await self.catalog.add_new_narinfo(newer, record(2)))
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (entry(1), record(1)))
        self.assertIsNone(await self.catalog.nar(key_of(2)))

    async def test_a_narinfo_is_not_new_if_its_nar_is_known(self) -> None:
        """If the NAR has a row under one of its two names, nothing is written."""
        await self.catalog.mark_stored(stored(1))
        other = entry(2, narinfo=narinfo(2, url=key_of(1).url))
        self.assertFalse(await self.catalog.add_new_narinfo(other, record(1)))
        self.assertFalse(await self.catalog.add_new_narinfo(entry(2), record(2), key_of(1)))
        self.assertIsNone(await self.catalog.narinfo(digest_of(2)))
        self.assertIsNone(await self.catalog.nar(key_of(2)))
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1))
        self.assertTrue(await self.catalog.add_new_narinfo(entry(2), record(2), key_of(3)))

    async def test_a_narinfo_may_move_to_another_nar(self) -> None:
        """A narinfo added again with another URL belongs to that NAR from then on."""
        await self.catalog.add_narinfo(entry(1), record(1))
        moved = entry(1, narinfo=narinfo(1, url=key_of(2).url))
        await self.catalog.add_narinfo(moved, record(2))
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (moved, record(2)))
        self.assertEqual(await self.catalog.narinfos_of(key_of(1)), [])
        self.assertEqual(await self.catalog.narinfos_of(key_of(2)), [moved])
        self.assertEqual(await self.catalog.nar(key_of(1)), record(1))

    async def test_narinfos_of_one_nar_hash_are_alike(self) -> None:
        """A NAR whose narinfo now names another URL leads to that narinfo."""
        nar_hash = hash_of("nar 1")
        await self.catalog.add_narinfo(entry(1), record(1))
        moved = entry(1, narinfo=narinfo(1, url=key_of(2).url))
        await self.catalog.add_narinfo(moved, record(2, nar_hash=nar_hash))
        await self.catalog.add_narinfo(entry(3), record(3))
        self.assertEqual(await self.catalog.narinfos_alike(key_of(1)), [moved])
        self.assertEqual(await self.catalog.narinfos_alike(key_of(9)), [])

    async def test_narinfos_may_share_a_nar(self) -> None:
        """Several paths with one NAR are all found by its key."""
        other = entry(2, narinfo=narinfo(2, url=key_of(1).url))
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.add_narinfo(other, record(1))
        found = await self.catalog.narinfos_of(key_of(1))
        self.assertEqual({each.digest for each in found}, {digest_of(1), digest_of(2)})

    async def test_a_stored_nar_keeps_its_facts(self) -> None:
        """A narinfo of a stored NAR adds missing facts and changes nothing else."""
        await self.catalog.mark_stored(stored(1, nar_size=None))
        told = record(
            1,
            file_size=1,
            file_hash=hash_of("lie"),
            upstream="https://other.example.org",
            origin_url="other",
        )
        await self.catalog.add_narinfo(entry(1), told)
        self.assertEqual(await self.nar_record(1), stored(1))

    async def test_a_removed_nar_keeps_its_facts_and_follows_the_origin(self) -> None:
        """Facts about removed bytes remain; the bytes may be at another origin now."""
        await self.catalog.mark_stored(stored(1))
        await self.catalog.mark_missing(key_of(1))
        elsewhere = {"upstream": "https://other.example.org", "origin_url": "nar/other"}
        told = record(1, file_size=1, file_hash=hash_of("lie"), **elsewhere)
        await self.catalog.add_narinfo(entry(1), told)
        found = await self.nar_record(1)
        self.assertEqual(found, record(1, encoding="xz", **elsewhere))
        self.assertEqual((False, True), (found.is_stored, found.was_stored))

    async def test_an_unknown_origin_of_stored_bytes_is_filled_in(self) -> None:
        """Bytes found in the store get the origin from which they can be fetched again."""
        await self.catalog.mark_stored(stored(1, upstream="", origin_url=""))
        await self.catalog.add_narinfo(entry(1), record(1))
        self.assertEqual(await self.nar_record(1), stored(1))

    async def test_a_nar_that_is_not_stored_follows_the_last_narinfo(self) -> None:
        """While nothing is stored, facts and origin of the newest upstream count, all together."""
        await self.catalog.add_narinfo(entry(1), record(1))
        newer = record(
            1,
            file_size=None,
            file_hash=None,
            upstream="https://other.example.org",
            origin_url="nar/other",
        )
        await self.catalog.add_narinfo(entry(1), newer)
        self.assertEqual(await self.nar_record(1), newer)

    async def test_forgetting_a_narinfo_leaves_its_nar(self) -> None:
        """Dropping a narinfo drops nothing else."""
        await self.catalog.add_narinfo(entry(1), record(1))
        self.assertTrue(await self.catalog.forget_narinfo(digest_of(1)))
        self.assertIsNone(await self.catalog.narinfo(digest_of(1)))
        self.assertFalse(await self.catalog.forget_narinfo(digest_of(1)))
        self.assertEqual(await self.catalog.nar(key_of(1)), record(1))

    async def test_forgetting_a_nar_takes_its_narinfos_along(self) -> None:
        """A NAR is dropped with every narinfo that names it and no other."""
        for number in (1, 2, 3):
            nar = 1 if number < 3 else 3
            info = narinfo(number, url=key_of(nar).url)
            await self.catalog.add_narinfo(entry(number, narinfo=info), record(nar))
        self.assertTrue(await self.catalog.forget_nar(key_of(1)))
        self.assertFalse(await self.catalog.forget_nar(key_of(1)))
        self.assertIsNone(await self.catalog.narinfo(digest_of(1)))
        self.assertIsNone(await self.catalog.narinfo(digest_of(2)))
        self.assertIsNone(await self.catalog.nar(key_of(1)))
        self.assertIsNotNone(await self.catalog.narinfo(digest_of(3)))

    async def test_many_narinfos_are_found_in_one_call(self) -> None:
        """Of 1,000 hashes, the recorded ones return whole; a hash passed twice returns once."""
        there = list(range(0, 120, 2))
        writes = [start(self.catalog.add_narinfo(entry(n), record(n))) for n in there]
        await gatherResults(writes, consumeErrors=True)
        await self.catalog.mark_stored(stored(2))
        digests = [digest_of(number) for number in [*range(1000), *range(10)]]
        found = await self.catalog.narinfos_among(digests)
        expected = {digest_of(n): (entry(n), record(n)) for n in there}
        expected[digest_of(2)] = (entry(2), stored(2))
        self.assertEqual(found, expected)
        self.assertEqual(await self.catalog.narinfos_among([]), {})
        self.assertEqual(await self.catalog.narinfos_among([digest_of(1)]), {})

    async def test_a_long_narinfo_is_named_among_many_and_read_alone(self) -> None:
        """A narinfo of more than 64 KiB is reported as present, without its text."""
        references = tuple(path_of(number) for number in range(1500))
        long = entry(1, narinfo=narinfo(1, references=references))
        await self.catalog.add_narinfo(long, record(1))
        await self.catalog.add_narinfo(entry(2), record(2))
        found = await self.catalog.narinfos_among([digest_of(1), digest_of(2), digest_of(3)])
        self.assertEqual(found, {digest_of(1): None, digest_of(2): (entry(2), record(2))})
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), (long, record(1)))

    async def test_readers_at_one_time_get_their_own_each(self) -> None:
        """Engines may read for all in one statement: absent, equal and long narinfos among them."""
        references = tuple(path_of(number) for number in range(2000))
        long = entry(40, narinfo=narinfo(40, references=references))
        written = {number: entry(number) for number in range(40)} | {40: long}
        for number, each in written.items():
            await self.catalog.add_narinfo(each, record(number))
        asked = [*range(0, 60, 2), *range(40), 40, 41]
        reads = [start(self.catalog.narinfo(digest_of(number))) for number in asked]
        nars = [start(self.catalog.nar(key_of(number))) for number in asked]
        expected = [
            (written[number], record(number)) if number in written else None for number in asked
        ]
        self.assertEqual(await gatherResults(reads), expected)
        self.assertEqual(
            await gatherResults(nars), [None if each is None else each[1] for each in expected]
        )

    async def test_names_that_differ_in_their_ending_are_different_nars(self) -> None:
        """Such names stay different if they are read at the same time."""
        keys = [evolve(key_of(1), extension=ending) for ending in ("xz", "zst", "")]
        for key in keys[:2]:
            compression = {"xz": "xz", "zst": "zstd"}[key.extension]
            await self.catalog.add_narinfo(
                entry(1, narinfo=narinfo(1, url=key.url, compression=compression)),
                record(1, key=key, compression=compression),
            )
        found = await gatherResults([start(self.catalog.nar(key)) for key in keys])
        self.assertEqual([None if nar is None else nar.key for nar in found], [*keys[:2], None])

    async def test_a_reader_that_leaves_stops_no_other_one(self) -> None:
        """A cancelled read stops no other one, even if both share a statement."""
        await self.catalog.add_narinfo(entry(1), record(1))
        leaving, same, other = (
            start(self.catalog.narinfo(digest_of(number))) for number in (1, 1, 2)
        )
        leaving.addErrback(lambda failure: failure.trap(CancelledError))
        leaving.cancel()
        self.assertEqual(await same, (entry(1), record(1)))
        self.assertIsNone(await other)

    async def test_many_writers_at_the_same_time_lose_nothing(self) -> None:
        """Two hundred narinfos recorded at one time are all there."""
        writes = [
            start(self.catalog.add_narinfo(entry(number), record(number))) for number in range(200)
        ]
        await gatherResults(writes, consumeErrors=True)
        self.assertEqual(await self.catalog.totals(), Totals(200, 0, 0))
        for number in (0, 99, 199):
            found = await self.catalog.narinfo(digest_of(number))
            self.assertEqual(found, (entry(number), record(number)))


class CatalogContract(NarInfoContract, StoredContract, InventoryContract, FenceContract):
    """The whole contract of a catalog."""
