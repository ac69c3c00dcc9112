"""What every Catalog keeps to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from ncps.errors import Conflict
from ncps.nix.keys import Signature
from ncps.nix.narurl import NarKey
from ncps.ports import Forgotten, Inventory, NarRecord, Totals
from ncps.ports.catalog import WRONG_S
from tests.contract.running import Contract, start
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


class NarInfoContract(Contract):
    """Narinfos and the NAR rows they bring."""

    catalog: Inventory

    async def nar_record(self, number: int) -> NarRecord:
        found = await self.catalog.nar(key_of(number))
        assert found is not None
        return found

    async def test_an_empty_catalog_knows_nothing(self) -> None:
        """What was never recorded is absent in every way of asking, and no error to drop."""
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
        """A NAR whose narinfo names another URL by now leads to that narinfo."""
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

    async def test_what_is_stored_keeps_its_facts(self) -> None:
        """A narinfo of a NAR that is stored fills in what was unknown and changes nothing else."""
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

    async def test_what_was_stored_once_keeps_its_facts_and_follows_the_origin(self) -> None:
        """Bytes that are gone are known for what they were; they may be elsewhere now."""
        await self.catalog.mark_stored(stored(1))
        await self.catalog.mark_missing(key_of(1))
        elsewhere = {"upstream": "https://other.example.org", "origin_url": "nar/other"}
        told = record(1, file_size=1, file_hash=hash_of("lie"), **elsewhere)
        await self.catalog.add_narinfo(entry(1), told)
        found = await self.nar_record(1)
        self.assertEqual(found, record(1, encoding="xz", **elsewhere))
        self.assertEqual((False, True), (found.is_stored, found.was_stored))

    async def test_an_unknown_origin_of_stored_bytes_is_filled_in(self) -> None:
        """Bytes found in the store learn where they can be fetched again."""
        await self.catalog.mark_stored(stored(1, upstream="", origin_url=""))
        await self.catalog.add_narinfo(entry(1), record(1))
        self.assertEqual(await self.nar_record(1), stored(1))

    async def test_what_is_not_stored_follows_the_last_narinfo(self) -> None:
        """While nothing is stored, the newest upstream's facts and origin count, as a whole."""
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
        """A narinfo is dropped alone."""
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

    async def test_many_writers_at_once_lose_nothing(self) -> None:
        """Two hundred narinfos recorded at one time are all there."""
        writes = [
            start(self.catalog.add_narinfo(entry(number), record(number))) for number in range(200)
        ]
        await gatherResults(writes, consumeErrors=True)
        self.assertEqual(await self.catalog.totals(), Totals(200, 0, 0))
        for number in (0, 99, 199):
            found = await self.catalog.narinfo(digest_of(number))
            self.assertEqual(found, (entry(number), record(number)))


class StoredContract(Contract):
    """The life of stored bytes, verification, uses and counts."""

    catalog: Inventory

    async def nar_record(self, number: int) -> NarRecord:
        found = await self.catalog.nar(key_of(number))
        assert found is not None
        return found

    async def test_stored_bytes_are_recorded(self) -> None:
        """After publication the record says so, whether a narinfo had named the NAR or not."""
        await self.catalog.mark_stored(stored(1))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.mark_stored(stored(2, verified_at=later(1)))
        self.assertEqual(await self.nar_record(1), stored(1))
        self.assertEqual(await self.nar_record(2), stored(2, verified_at=later(1)))
        found = await self.catalog.narinfo(digest_of(2))
        assert found is not None
        self.assertEqual(found, (entry(2), stored(2, verified_at=later(1))))

    async def test_storing_anew_replaces_the_record(self) -> None:
        """The record of the bytes that are there now is the one that counts."""
        await self.catalog.mark_stored(stored(1, verified_at=later(1)))
        newer = stored(1, stored_at=later(60), stored_size=77, encoding="zstd")
        await self.catalog.mark_stored(newer)
        self.assertEqual(await self.nar_record(1), newer)

    async def test_storing_anew_keeps_the_last_use(self) -> None:
        """A NAR that is stored again is as recently used as it was."""
        await self.catalog.mark_stored(stored(1))
        await self.catalog.touch({}, {key_of(1): later(5)})
        await self.catalog.mark_stored(stored(1, stored_at=later(60)))
        self.assertEqual((await self.nar_record(1)).last_used_at, later(5))

    async def test_narinfos_learn_the_facts_of_the_file(self) -> None:
        """FileHash and FileSize are those of the bytes once these are there, whatever was said."""
        for number, changes in enumerate(
            [
                {"file_hash": None, "file_size": None},
                {"file_size": None},
                {"file_hash": None},
                {},
            ]
        ):
            info = narinfo(number, url=key_of(50).url, **changes)
            await self.catalog.add_narinfo(entry(number, narinfo=info), record(50))
        size, digest = 4242, hash_of("measured")
        await self.catalog.mark_stored(stored(50, file_size=size, file_hash=digest))
        infos = [each.narinfo for each in await self.catalog.narinfos_of(key_of(50))]
        infos.sort(key=lambda info: info.store_path.name)
        self.assertEqual(
            [(info.file_hash, info.file_size) for info in infos],
            [
                (digest, size),
                (digest, size),
                (digest, size),
                (digest, size),
            ],
        )
        self.assertEqual(infos[0].references, narinfo(0).references)
        self.assertEqual(infos[0].signatures, narinfo(0).signatures)

    async def test_uncompressed_narinfos_are_left_alone(self) -> None:
        """With compression none the file is the NAR, whatever is stored for it."""
        info = narinfo(
            1,
            compression="none",
            file_hash=hash_of("nar 1"),
            file_size=5001,
        )
        await self.catalog.add_narinfo(entry(1, narinfo=info), record(1, compression="none"))
        await self.catalog.mark_stored(stored(1, file_size=7, file_hash=hash_of("other")))
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].narinfo, info)

    async def test_missing_bytes_leave_the_rest(self) -> None:
        """Where the bytes are gone, what is known of them stays, and they can be fetched again."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.mark_stored(stored(1, verified_at=later(1)))
        await self.catalog.mark_missing(key_of(1))
        found = await self.nar_record(1)
        self.assertFalse(found.is_stored)
        self.assertEqual(evolve(found, encoding=""), record(1))
        self.assertIsNotNone(await self.catalog.narinfo(digest_of(1)))

    async def test_only_what_is_stored_can_be_verified(self) -> None:
        """What a check has found is kept for the bytes that were read, and for nothing else."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.mark_stored(stored(2))
        for number in (1, 2):
            found = stored(number, verified_at=later(9), stored_tag="another")
            self.assertEqual(await self.catalog.mark_verified(found), number == 2)
        self.assertIsNone((await self.nar_record(1)).verified_at)
        self.assertEqual(
            await self.nar_record(2), stored(2, verified_at=later(9), stored_tag="another")
        )
        await self.catalog.mark_stored(stored(2, stored_at=later(1)))
        self.assertFalse(await self.catalog.mark_verified(stored(2, verified_at=later(9))))
        self.assertIsNone((await self.nar_record(2)).verified_at)

    async def test_a_file_is_found_by_its_hash(self) -> None:
        """Whatever it is called, as long as it is stored and its key has the extension."""
        found = stored(1, file_hash=hash_of("another file"))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.mark_stored(found)
        self.assertEqual(await self.catalog.stored_file(hash_of("another file"), "xz"), found)
        self.assertIsNone(await self.catalog.stored_file(hash_of("another file"), "zst"))
        self.assertIsNone(await self.catalog.stored_file(hash_of("file 2"), "xz"))
        await self.catalog.mark_missing(key_of(1))
        self.assertIsNone(await self.catalog.stored_file(hash_of("another file"), "xz"))

    async def test_bytes_that_nobody_has_read_take_no_narinfo_s_word(self) -> None:
        """A stored file keeps no NarHash that a narinfo says, unless the file is that NAR."""
        bare = {"compression": "", "nar_hash": None, "nar_size": None, "encoding": ""}
        await self.catalog.mark_stored(stored(1, **bare))
        await self.catalog.add_narinfo(entry(1), record(1))
        found = await self.nar_record(1)
        self.assertEqual((found.nar_hash, found.nar_size, found.compression), (None, None, ""))
        await self.catalog.mark_stored(stored(2, **bare))
        plain = record(2, compression="none", nar_hash=hash_of("file 2"))
        await self.catalog.add_narinfo(entry(2), plain)
        found = await self.nar_record(2)
        self.assertEqual((found.nar_hash, found.compression), (hash_of("file 2"), "none"))

    async def test_what_is_told_of_a_file_can_be_replaced(self) -> None:
        """Hash, size and origin, but for bytes that were seen; of nothing nothing becomes."""
        facts = {"file_hash": hash_of("other"), "file_size": 7, "upstream": "http://o"}
        told = record(1, **facts, origin_url="nar/other.nar.xz", compression="br", nar_size=1)
        await self.catalog.restate(told)
        self.assertIsNone(await self.catalog.nar(key_of(1)))
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.restate(told)
        now = record(1, **facts, origin_url="nar/other.nar.xz")
        self.assertEqual(await self.nar_record(1), now)
        nothing = record(1, file_hash=None, file_size=None, upstream="", origin_url="")
        await self.catalog.restate(nothing)
        self.assertEqual(await self.nar_record(1), nothing)
        await self.catalog.mark_stored(stored(1))
        await self.catalog.restate(told)
        self.assertEqual(await self.nar_record(1), stored(1))
        await self.catalog.mark_missing(key_of(1))
        await self.catalog.restate(told)
        self.assertEqual((await self.nar_record(1)).file_hash, stored(1).file_hash)

    async def test_what_was_found_wrong_stays_known(self) -> None:
        """A pair of hashes, for as long as is promised, and only that pair."""
        await self.catalog.note_wrong(hash_of("nar 1"), hash_of("file 1"), EARLY)
        await self.catalog.note_wrong(hash_of("nar 1"), hash_of("file 1"), later(9))

        async def is_wrong(nar: int, file: int, after_s: float) -> bool:
            return await self.catalog.is_wrong(
                hash_of(f"nar {nar}"), hash_of(f"file {file}"), later(after_s)
            )

        self.assertTrue(await is_wrong(1, 1, 9))
        self.assertTrue(await is_wrong(1, 1, WRONG_S + 9))
        self.assertFalse(await is_wrong(1, 1, WRONG_S + 10))
        self.assertFalse(await is_wrong(1, 2, 9))
        self.assertFalse(await is_wrong(2, 1, 9))

    async def test_the_oldest_unverified_come_first(self) -> None:
        """What waits for its check is listed by age, as many as asked for, and only what can be."""
        for number in (3, 1, 2):
            await self.catalog.mark_stored(stored(number, stored_at=later(number)))
        await self.catalog.mark_stored(stored(4, verified_at=later(1)))
        unknown = stored(5, nar_hash=None, encoding="", stored_at=later(5))
        await self.catalog.mark_stored(unknown)
        await self.catalog.add_narinfo(entry(6), record(6))
        waiting = await self.catalog.unverified(10, {"xz"})
        self.assertEqual([nar.key for nar in waiting], [key_of(n) for n in (1, 2, 3, 5)])
        self.assertEqual(waiting[0], stored(1, stored_at=later(1)))
        self.assertEqual(await self.catalog.unverified(10, {"zstd"}), [unknown])
        self.assertEqual(await self.catalog.unverified(10, ()), [])
        self.assertEqual([nar.key for nar in await self.catalog.unverified(1, {"xz"})], [key_of(1)])

    async def test_uses_are_noted_and_never_go_back(self) -> None:
        """The time of last use only grows, for narinfos and NARs alike; strangers are ignored."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.touch({digest_of(1): later(9)}, {key_of(1): later(8)})
        await self.catalog.touch({digest_of(1): later(5)}, {key_of(1): later(5)})
        await self.catalog.touch({digest_of(7): later(9)}, {key_of(7): later(9)})
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(9))
        self.assertEqual(found[1].last_used_at, later(8))
        self.assertEqual((await self.catalog.totals()).narinfos, 1)

    async def test_fetching_anew_keeps_the_last_use(self) -> None:
        """A narinfo that was added again is as recently used as it was."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.touch({digest_of(1): later(9)}, {key_of(1): later(8)})
        await self.catalog.add_narinfo(entry(1, fetched_at=later(20)), record(1))
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(9))
        self.assertEqual(found[1].last_used_at, later(8))

    async def test_many_uses_are_noted_at_once(self) -> None:
        """Thousands of uses in one call are no problem."""
        await self.catalog.add_narinfo(entry(1), record(1))
        uses = {digest_of(number): later(number) for number in range(5000)}
        await self.catalog.touch(uses, {key_of(number): later(number) for number in range(5000)})
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(1))

    async def test_totals_count_what_is_stored(self) -> None:
        """Narinfos, stored NARs and their bytes are counted; what is only known is not stored."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.mark_stored(stored(2, stored_size=10))
        await self.catalog.mark_stored(stored(3, stored_size=5 * 2**40))
        self.assertEqual(await self.catalog.totals(), Totals(2, 2, 10 + 5 * 2**40))
        await self.catalog.mark_missing(key_of(3))
        self.assertEqual(await self.catalog.totals(), Totals(2, 1, 10))


class InventoryContract(Contract):
    """Sizes and ages; what is evicted and what is forgotten."""

    catalog: Inventory

    async def stored_bytes(self) -> int:
        """The counter, after it was found to be right."""
        size = await self.catalog.stored_bytes()
        self.assertEqual(await self.catalog.recount(), 0, "bytes the counter was off")
        self.assertEqual((await self.catalog.totals()).bytes_stored, size)
        return size

    async def idle(self, before: float = 1e6, limit: int = 100) -> list[tuple[NarKey, datetime]]:
        found = await self.catalog.idle(later(before), limit)
        return [(idle.nar.key, idle.used_at) for idle in found]

    async def test_the_size_is_that_of_all_stored_bytes(self) -> None:
        """Whatever stores, replaces or forgets bytes keeps the count."""
        self.assertEqual(await self.stored_bytes(), 0)
        await self.catalog.add_narinfo(entry(1), record(1))
        self.assertEqual(await self.stored_bytes(), 0)
        for _ in range(2):
            await self.catalog.mark_stored(stored(1, stored_size=10))
            self.assertEqual(await self.stored_bytes(), 10)
        await self.catalog.mark_stored(stored(1, stored_size=7))
        await self.catalog.mark_stored(stored(2, stored_size=5 * 2**40))
        self.assertEqual(await self.stored_bytes(), 7 + 5 * 2**40)
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.add_narinfo(entry(3), stored(3, stored_size=3))
        self.assertEqual(await self.stored_bytes(), 10 + 5 * 2**40)
        for _ in range(2):
            await self.catalog.mark_missing(key_of(2))
            self.assertEqual(await self.stored_bytes(), 10)
        for _ in range(2):
            await self.catalog.forget_nar(key_of(3))
            self.assertEqual(await self.stored_bytes(), 7)
        await self.catalog.forget_narinfo(digest_of(1))
        self.assertEqual(await self.stored_bytes(), 7)
        await self.catalog.evict(await self.catalog.idle(later(60), 10))
        self.assertEqual(await self.stored_bytes(), 0)

    async def test_a_store_refused_counts_nothing(self) -> None:
        """What is refused because a later lease stored the NAR leaves the count alone."""
        await self.catalog.mark_stored(stored(1, stored_size=10), fence=2)
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=99), fence=1)
        self.assertEqual(await self.stored_bytes(), 10)

    async def test_many_at_once_are_counted_right(self) -> None:
        """Fifty NARs stored, stored again and removed at one time leave the right count."""
        works: list[Deferred[Any]] = []
        for number in range(50):
            works.append(start(self.catalog.mark_stored(stored(number, stored_size=number))))
            works.append(start(self.catalog.mark_stored(stored(number, stored_size=number))))
            works.append(start(self.catalog.recount()))
        await gatherResults(works, consumeErrors=True)
        self.assertEqual(await self.stored_bytes(), sum(range(50)))
        works = [start(self.catalog.mark_missing(key_of(number))) for number in range(0, 50, 2)]
        works += [start(self.catalog.forget_nar(key_of(number))) for number in range(1, 50, 2)]
        await gatherResults(works, consumeErrors=True)
        self.assertEqual(await self.stored_bytes(), 0)

    async def test_a_catalog_knows_its_age(self) -> None:
        """When it was made is in the past, and stays so."""
        made = await self.catalog.created_at()
        self.assertLess(made, datetime.now(UTC) + timedelta(minutes=5))
        self.assertEqual(await self.catalog.created_at(), made)

    async def test_a_catalog_tells_the_time(self) -> None:
        """What it says is the time of day, to the second, in UTC."""
        before = datetime.now(UTC)
        told = await self.catalog.time()
        self.assertLess(before - timedelta(seconds=2), told)
        self.assertLess(told, datetime.now(UTC) + timedelta(seconds=1))

    async def test_the_longest_unwanted_come_first(self) -> None:
        """The later use of NAR and narinfo counts, and storing counts as one; NULL is no use."""
        for number in range(6):
            await self.catalog.add_narinfo(entry(number), record(number))
            await self.catalog.mark_stored(stored(number, stored_at=later(number)))
        await self.catalog.add_narinfo(entry(9), record(9))
        await self.catalog.touch(
            {digest_of(0): later(100), digest_of(1): later(10), digest_of(2): later(1)},
            {key_of(0): later(5), key_of(1): later(50), key_of(3): later(2)},
        )
        expected = [
            (key_of(2), later(2)),
            (key_of(3), later(3)),
            (key_of(4), later(4)),
            (key_of(5), later(5)),
            (key_of(1), later(50)),
            (key_of(0), later(100)),
        ]
        self.assertEqual(await self.idle(), expected)
        self.assertEqual(await self.idle(limit=2), expected[:2])
        self.assertEqual(await self.idle(before=50), expected[:4])
        self.assertEqual(await self.idle(before=2), [])
        [first] = await self.catalog.idle(later(3), 1)
        self.assertEqual(first.nar, await self.catalog.nar(key_of(2)))

    async def test_a_shared_nar_is_as_wanted_as_any_of_its_narinfos(self) -> None:
        """The last use of all narinfos of a NAR counts."""
        await self.catalog.mark_stored(stored(1))
        for number in (1, 2, 3):
            info = narinfo(number, url=key_of(1).url)
            await self.catalog.add_narinfo(entry(number, narinfo=info), record(1))
        await self.catalog.touch({digest_of(2): later(30), digest_of(3): later(20)}, {})
        self.assertEqual(await self.idle(), [(key_of(1), later(30))])

    async def test_what_is_evicted_can_be_fetched_again(self) -> None:
        """The bytes are recorded as gone; facts, origin and narinfos stay."""
        await self.catalog.mark_stored(stored(1, verified_at=later(1)))
        for number in (1, 2):
            info = narinfo(number, url=key_of(1).url)
            await self.catalog.add_narinfo(entry(number, narinfo=info), record(1))
        idle = await self.catalog.idle(later(60), 10)
        [evicted] = await self.catalog.evict(idle)
        self.assertEqual(evicted.nar, idle[0].nar)
        self.assertEqual(evicted.digests, tuple(sorted((digest_of(1), digest_of(2)))))
        nar = await self.catalog.nar(key_of(1))
        assert nar is not None
        self.assertFalse(nar.is_stored)
        self.assertEqual(evolve(nar, encoding=""), record(1, last_used_at=EARLY))
        self.assertEqual(len(await self.catalog.narinfos_of(key_of(1))), 2)
        self.assertEqual(await self.idle(), [])
        self.assertEqual(await self.catalog.evict(idle), [])
        self.assertEqual(await self.stored_bytes(), 0)

    async def test_only_what_is_as_it_was_is_evicted(self) -> None:
        """What was used, stored anew or removed since it was looked at stays as it is."""
        for number in range(6):
            await self.catalog.add_narinfo(entry(number), record(number))
            await self.catalog.mark_stored(stored(number, stored_size=10))
        idle = await self.catalog.idle(later(60), 10)
        self.assertEqual(len(idle), 6)
        await self.catalog.touch({digest_of(0): later(1)}, {key_of(1): later(1)})
        await self.catalog.mark_stored(stored(2, stored_at=later(1), stored_size=10))
        await self.catalog.mark_missing(key_of(3))
        await self.catalog.forget_nar(key_of(4))
        evicted = await self.catalog.evict(idle)
        self.assertEqual([each.nar.key for each in evicted], [key_of(5)])
        self.assertEqual(await self.stored_bytes(), 30)
        self.assertEqual(await self.catalog.evict([]), [])

    async def test_records_that_nobody_wants_are_forgotten(self) -> None:
        """Not stored, not used and not fetched since: the record goes, with its narinfos."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.add_narinfo(entry(2, fetched_at=later(100)), record(2))
        await self.catalog.add_narinfo(entry(3), record(3))
        await self.catalog.add_narinfo(entry(4), record(4))
        await self.catalog.add_narinfo(entry(5), record(5))
        await self.catalog.mark_stored(stored(5))
        await self.catalog.touch({digest_of(3): later(100)}, {key_of(4): later(100)})
        forgotten = await self.catalog.forget_unused(later(100), later(200), 10)
        self.assertEqual(forgotten, Forgotten((key_of(1),), is_all=True))
        self.assertIsNone(await self.catalog.nar(key_of(1)))
        self.assertIsNone(await self.catalog.narinfo(digest_of(1)))
        for number in (2, 3, 4, 5):
            self.assertIsNotNone(await self.catalog.narinfo(digest_of(number)))

    async def test_forgetting_is_bounded(self) -> None:
        """No more records than asked for are forgotten at once."""
        for number in range(5):
            await self.catalog.add_narinfo(entry(number), record(number))
        for left, is_all in ((3, False), (1, False), (0, True)):
            forgotten = await self.catalog.forget_unused(later(100), later(200), 2)
            self.assertEqual(is_all, forgotten.is_all)
            self.assertEqual((await self.catalog.totals()).narinfos, left)

    async def test_a_record_without_times_is_given_one(self) -> None:
        """A NAR whose narinfo moved on stays for as long as its URL may be remembered."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.forget_narinfo(digest_of(1))
        for before, gone in ((later(100), ()), (later(200), ()), (later(201), (key_of(1),))):
            forgotten = await self.catalog.forget_unused(before, later(200), 10)
            self.assertEqual(gone, forgotten.keys)
            if not gone:
                self.assertEqual(
                    await self.catalog.nar(key_of(1)), record(1, last_used_at=later(200))
                )

    async def test_records_that_are_given_a_time_hide_no_others(self) -> None:
        """Where nothing of a batch may be deleted yet, more of them are said to be there."""
        for number in (1, 2, 3):
            await self.catalog.add_narinfo(entry(number), record(number))
        for number in (1, 2):
            await self.catalog.forget_narinfo(digest_of(number))
        self.assertEqual(
            Forgotten((), is_all=False),
            await self.catalog.forget_unused(later(100), later(200), 2),
        )
        self.assertEqual(
            Forgotten((key_of(3),), is_all=True),
            await self.catalog.forget_unused(later(100), later(200), 2),
        )


class FenceContract(Contract):
    """Who held a lease, and lost it without noticing, does not write over who held it next."""

    catalog: Inventory

    async def test_an_earlier_lease_does_not_write_over_a_later_one(self) -> None:
        """What was fetched under an expired lease is refused, and changes nothing."""
        await self.catalog.add_narinfo(
            entry(1, narinfo=narinfo(1, file_hash=None, file_size=None)), record(1)
        )
        await self.catalog.mark_stored(stored(1, stored_size=8), 8)
        before = await self.catalog.narinfo(digest_of(1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=7, file_size=7), 7)
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), before)

    async def test_the_same_and_later_leases_write(self) -> None:
        """A lease may write again, and the next one after it."""
        for fence, size in ((8, 1), (8, 2), (9, 3), (2**62, 4)):
            await self.catalog.mark_stored(stored(1, stored_size=size), fence)
            self.assertEqual(await self.catalog.nar(key_of(1)), stored(1, stored_size=size))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1), 9)

    async def test_without_a_lease_all_is_written_and_the_last_lease_remembered(self) -> None:
        """Bytes found in the store are recorded; a lease that had expired stays so."""
        await self.catalog.mark_stored(stored(1, stored_size=8), 8)
        await self.catalog.mark_stored(stored(1, stored_size=1))
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1, stored_size=1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=7), 7)
        await self.catalog.mark_stored(stored(2), 1)
        self.assertEqual(await self.catalog.nar(key_of(2)), stored(2))

    async def test_missing_bytes_leave_the_number_of_the_lease(self) -> None:
        """Bytes that are gone are no reason to let an expired lease write."""
        await self.catalog.mark_stored(stored(1), 8)
        await self.catalog.mark_missing(key_of(1))
        await self.catalog.add_narinfo(entry(1), record(1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1), 7)
        await self.catalog.mark_stored(stored(1), 9)
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1))

    async def test_of_many_leases_at_once_the_last_remains(self) -> None:
        """Whatever the order in which they arrive."""
        writes = [
            start(self.catalog.mark_stored(stored(1, stored_size=fence), fence))
            for fence in (3, 9, 1, 8, 2, 7, 4, 6, 5)
        ]
        results = [result async for result in _settled(writes)]
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1, stored_size=9))
        self.assertIs(results[1], None)
        for result in results:
            self.assertTrue(result is None or isinstance(result, Conflict), result)


async def _settled(writes: list[Deferred[None]]) -> AsyncIterator[Exception | None]:
    for write in writes:
        try:
            await write
        except Conflict as error:
            yield error
        else:
            yield None


class CatalogContract(NarInfoContract, StoredContract, InventoryContract, FenceContract):
    """All of it."""
