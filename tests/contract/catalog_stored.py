"""The contract of every Catalog: stored NARs, and leases that were lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.errors import Conflict
from ncps.ports import Inventory, NarRecord, Totals
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
    record,
    stored,
)


class RecordContract(Contract):
    """Contracts of one catalog."""

    catalog: Inventory

    async def nar_record(self, number: int) -> NarRecord:
        found = await self.catalog.nar(key_of(number))
        assert found is not None
        return found


class StoredContract(RecordContract):
    """The life of stored bytes, verification, uses and counts."""

    async def test_stored_bytes_are_recorded(self) -> None:
        """After publication the record says so, whether a narinfo had named the NAR or not."""
        self.assertEqual(await self.catalog.mark_stored(stored(1)), [])
        await self.catalog.add_narinfo(entry(2), record(2), is_settled=True)
        told = await self.catalog.mark_stored(stored(2, verified_at=later(1)), is_settled=True)
        self.assertEqual(told, [entry(2)])
        self.assertEqual(await self.nar_record(1), stored(1))
        self.assertEqual(await self.nar_record(2), stored(2, verified_at=later(1)))
        found = await self.catalog.narinfo(digest_of(2))
        assert found is not None
        self.assertEqual(found, (entry(2), stored(2, verified_at=later(1))))

    async def test_storing_again_replaces_the_record(self) -> None:
        """The record of the current bytes counts."""
        await self.catalog.mark_stored(stored(1, verified_at=later(1)))
        newer = stored(1, stored_at=later(60), stored_size=77, encoding="zstd")
        await self.catalog.mark_stored(newer)
        self.assertEqual(await self.nar_record(1), newer)

    async def test_storing_again_keeps_the_last_use(self) -> None:
        """A NAR that is stored again keeps its last use."""
        await self.catalog.mark_stored(stored(1))
        await self.catalog.touch({}, {key_of(1): later(5)})
        await self.catalog.mark_stored(stored(1, stored_at=later(60)))
        self.assertEqual((await self.nar_record(1)).last_used_at, later(5))

    async def test_narinfos_learn_the_facts_of_the_file(self) -> None:
        """Stored bytes determine FileHash and FileSize, and an upstream no longer does."""
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
        """With compression none the file is the NAR, even if it is stored compressed."""
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
        """If the bytes are missing, the facts about them stay, and they can be fetched again."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.mark_stored(stored(1, verified_at=later(1)))
        await self.catalog.mark_missing(key_of(1))
        found = await self.nar_record(1)
        self.assertFalse(found.is_stored)
        self.assertEqual(evolve(found, encoding=""), record(1))
        self.assertIsNotNone(await self.catalog.narinfo(digest_of(1)))

    async def test_only_stored_nars_can_be_verified(self) -> None:
        """The result of a check is recorded for the bytes that were read, and for no others."""
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
        """A file is found under any name, as long as it is stored and its key has the extension."""
        found = stored(1, file_hash=hash_of("another file"))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.mark_stored(found)
        self.assertEqual(await self.catalog.stored_file(hash_of("another file"), "xz"), found)
        self.assertIsNone(await self.catalog.stored_file(hash_of("another file"), "zst"))
        self.assertIsNone(await self.catalog.stored_file(hash_of("file 2"), "xz"))
        await self.catalog.mark_missing(key_of(1))
        self.assertIsNone(await self.catalog.stored_file(hash_of("another file"), "xz"))

    async def test_unread_bytes_take_no_hash_from_a_narinfo(self) -> None:
        """A stored file takes no NarHash from a narinfo, unless the file is that NAR."""
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

    async def test_facts_about_an_unread_file_can_be_replaced(self) -> None:
        """Hash, size and origin are replaced, unless the bytes were read; no row is added."""
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

    async def test_a_wrong_pair_of_hashes_stays_known(self) -> None:
        """A wrong pair of hashes, and no other pair, is known for the promised time."""
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
        """NARs that can be checked are listed by age, at most as many as asked for."""
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
        """The last use of narinfos and NARs never becomes earlier; unknown ones are ignored."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.touch({digest_of(1): later(9)}, {key_of(1): later(8)})
        await self.catalog.touch({digest_of(1): later(5)}, {key_of(1): later(5)})
        await self.catalog.touch({digest_of(7): later(9)}, {key_of(7): later(9)})
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(9))
        self.assertEqual(found[1].last_used_at, later(8))
        self.assertEqual((await self.catalog.totals()).narinfos, 1)

    async def test_fetching_again_keeps_the_last_use(self) -> None:
        """A narinfo that was added again keeps its last use."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.touch({digest_of(1): later(9)}, {key_of(1): later(8)})
        await self.catalog.add_narinfo(entry(1, fetched_at=later(20)), record(1))
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(9))
        self.assertEqual(found[1].last_used_at, later(8))

    async def test_many_uses_are_noted_at_once(self) -> None:
        """Thousands of uses can be recorded in one call."""
        await self.catalog.add_narinfo(entry(1), record(1))
        uses = {digest_of(number): later(number) for number in range(5000)}
        await self.catalog.touch(uses, {key_of(number): later(number) for number in range(5000)})
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        self.assertEqual(found[0].last_used_at, later(1))

    async def test_totals_count_stored_nars(self) -> None:
        """Narinfos, stored NARs and their bytes are counted; NARs that are not stored are not."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.mark_stored(stored(2, stored_size=10))
        await self.catalog.mark_stored(stored(3, stored_size=5 * 2**40))
        self.assertEqual(await self.catalog.totals(), Totals(2, 2, 10 + 5 * 2**40))
        await self.catalog.mark_missing(key_of(3))
        self.assertEqual(await self.catalog.totals(), Totals(2, 1, 10))


class FenceContract(Contract):
    """A process that has lost its lease unnoticed does not write over the next holder's row."""

    catalog: Inventory

    async def test_an_earlier_lease_does_not_write_over_a_later_one(self) -> None:
        """A NAR that was fetched under an expired lease is refused, and changes nothing."""
        await self.catalog.add_narinfo(
            entry(1, narinfo=narinfo(1, file_hash=None, file_size=None)), record(1)
        )
        await self.catalog.mark_stored(stored(1, stored_size=8), 8)
        before = await self.catalog.narinfo(digest_of(1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=7, file_size=7), 7)
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), before)

    async def test_the_same_and_later_leases_write(self) -> None:
        """The same lease may write again, and so may the next one."""
        for fence, size in ((8, 1), (8, 2), (9, 3), (2**62, 4)):
            await self.catalog.mark_stored(stored(1, stored_size=size), fence)
            self.assertEqual(await self.catalog.nar(key_of(1)), stored(1, stored_size=size))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1), 9)

    async def test_without_a_lease_all_is_written_and_the_last_lease_remembered(self) -> None:
        """Bytes found in the store are recorded; an expired lease stays expired."""
        await self.catalog.mark_stored(stored(1, stored_size=8), 8)
        await self.catalog.mark_stored(stored(1, stored_size=1))
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1, stored_size=1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=7), 7)
        await self.catalog.mark_stored(stored(2), 1)
        self.assertEqual(await self.catalog.nar(key_of(2)), stored(2))

    async def test_missing_bytes_leave_the_number_of_the_lease(self) -> None:
        """Missing bytes do not allow an expired lease to write."""
        await self.catalog.mark_stored(stored(1), 8)
        await self.catalog.mark_missing(key_of(1))
        await self.catalog.add_narinfo(entry(1), record(1))
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1), 7)
        await self.catalog.mark_stored(stored(1), 9)
        self.assertEqual(await self.catalog.nar(key_of(1)), stored(1))

    async def test_of_many_leases_at_the_same_time_the_last_remains(self) -> None:
        """The last lease remains in every order of arrival."""
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
