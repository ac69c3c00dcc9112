"""The contract of twins, beside an inventory of the same catalog."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve

from ncps.errors import Conflict, NotFound
from ncps.nix.narurl import NarKey, opaque_key
from ncps.ports import Block, Blocked, Inventory, NarRecord, Removals, TwinCandidates, Twins
from ncps.ports.catalog import NEVER_ASKED_FOR
from tests.contract.running import Contract
from tests.contract.samples import EARLY, digest_of, entry, hash_of, key_of, later, stored

LATE = later(100.0)


def twin_of(nar: NarRecord, **changes: Any) -> NarRecord:
    """Return the record of a twin."""
    assert nar.nar_hash is not None
    key = opaque_key("zstd", nar.nar_hash)
    plain = evolve(
        nar,
        key=key,
        compression="zstd",
        encoding="zstd",
        file_size=700,
        file_hash=hash_of("twin"),
        stored_size=700,
        stored_tag="twin",
        stored_at=LATE,
        verified_at=LATE,
        last_used_at=None,
        made_from=nar.key.file_name,
        made_level=9,
    )
    return evolve(plain, **changes)


class TwinsContract(Contract):
    catalog: Inventory
    removals: Removals
    twins: Twins

    async def hold(self, number: int, *, has_narinfo: bool = True, **changes: Any) -> NarRecord:
        """Store a NAR that was verified."""
        nar = stored(number, **({"verified_at": EARLY} | changes))
        await self.catalog.mark_stored(nar)
        if has_narinfo:
            await self.catalog.add_narinfo(entry(number), nar)
        return nar

    async def wanted(self, limit: int = 100, compressions: Sequence[str] = ("xz",)) -> list[NarKey]:
        wanted = TwinCandidates(compressions=tuple(compressions), min_size=1)
        found = await self.twins.wanting(limit, wanted)
        return [nar.key for nar in found]

    async def test_candidates(self) -> None:
        """A verified NAR with a narinfo and an upstream is listed; others are not."""
        nar = await self.hold(1)
        await self.hold(2, verified_at=None)
        await self.hold(3, upstream="")
        await self.hold(4, uploaded_at=EARLY)
        await self.hold(5, has_narinfo=False)
        await self.hold(6, encoding="zstd")
        await self.hold(7, nar_hash=None)
        await self.hold(8, recompressed_at=EARLY)
        await self.catalog.mark_missing((await self.hold(9)).key)
        self.assertEqual(await self.wanted(), [nar.key])
        self.assertEqual(await self.wanted(compressions=("bzip2", "none")), [])

    async def test_small_files_do_not(self) -> None:
        """A file below the smallest size is not listed, and is not counted as waiting."""
        nar = await self.hold(1)
        size = nar.stored_size or 0
        for least, expected in ((size, 1), (size + 1, 0)):
            wanted = TwinCandidates(compressions=("xz",), min_size=least)
            self.assertEqual(len(await self.twins.wanting(9, wanted)), expected)
            self.assertEqual(await self.twins.waiting(wanted), expected)

    async def test_reuse(self) -> None:
        """The list can be limited to NARs that a client asked for again."""
        await self.hold(1, last_used_at=None)
        await self.hold(2, last_used_at=NEVER_ASKED_FOR)
        nar = await self.hold(3, last_used_at=EARLY + timedelta(seconds=60))
        self.assertEqual(nar.stored_at, EARLY)
        for reused_s, expected in ((60.0, [nar.key]), (60.001, [])):
            wanted = TwinCandidates(compressions=("xz",), min_size=1, reused_s=reused_s)
            found = await self.twins.wanting(9, wanted)
            self.assertEqual([each.key for each in found], expected)
            self.assertEqual(await self.twins.waiting(wanted), len(expected))

    async def test_last_use(self) -> None:
        """The list can be limited to NARs that a client asked for since a time."""
        await self.hold(1, last_used_at=None)
        nar = await self.hold(2, last_used_at=later(60.0))
        for since, expected in ((later(60.0), [nar.key]), (later(60.001), [])):
            wanted = TwinCandidates(compressions=("xz",), min_size=1, used_since=since)
            found = await self.twins.wanting(9, wanted)
            self.assertEqual([each.key for each in found], expected)
            self.assertEqual(await self.twins.waiting(wanted), len(expected))

    async def test_limit(self) -> None:
        """No more NARs are returned than requested."""
        for number in range(4):
            await self.hold(number)
        self.assertEqual(len(await self.wanted(3)), 3)

    async def test_tried(self) -> None:
        """A NAR that was tried is not listed again."""
        nar = await self.hold(1)
        await self.twins.tried(nar.key, LATE)
        self.assertEqual(await self.wanted(), [])
        found = await self.catalog.nar(nar.key)
        self.assertEqual(found and found.recompressed_at, LATE)

    async def test_join(self) -> None:
        """The narinfo names the twin, with the facts of its file; the original stays stored."""
        nar = await self.hold(1)
        before = await self.catalog.stored_bytes()
        twin = twin_of(nar)
        entries = await self.twins.join(twin, nar.key)
        self.assertEqual([each.digest for each in entries], [digest_of(1)])
        found = await self.catalog.narinfo(digest_of(1))
        assert found is not None
        narinfo, record = found[0].narinfo, found[1]
        self.assertEqual(record, twin)
        self.assertEqual(
            (narinfo.url, narinfo.compression, narinfo.file_hash, narinfo.file_size),
            (twin.key.url, "zstd", twin.file_hash, 700),
        )
        self.assertEqual(narinfo.signatures, entry(1).narinfo.signatures)
        self.assertEqual(await self.catalog.stored_bytes(), before + 700)
        original = await self.catalog.nar(nar.key)
        self.assertEqual(original, evolve(nar, recompressed_at=LATE))
        self.assertEqual(await self.wanted(compressions=("xz", "zstd")), [])

    async def test_a_narinfo_that_comes_later(self) -> None:
        """An original that another narinfo names is listed again, if the twin is still stored."""
        nar = await self.hold(1)
        twin = twin_of(nar)
        await self.twins.join(twin, nar.key)
        await self.catalog.add_narinfo(entry(2), nar)
        self.assertEqual(await self.wanted(), [nar.key])
        entries = await self.twins.join(twin, nar.key)
        self.assertEqual({each.digest for each in entries}, {digest_of(1), digest_of(2)})
        await self.catalog.mark_missing(twin.key)
        await self.catalog.add_narinfo(entry(2), nar)
        self.assertEqual(await self.wanted(), [])

    async def test_urls_that_clients_have(self) -> None:
        """A file that narinfos named is remembered for a month after clients last received them."""
        nar = await self.hold(1, last_used_at=later(1.0))
        twin = twin_of(nar)
        await self.catalog.touch({digest_of(1): later(50.0)}, {})
        await self.twins.join(twin, nar.key)
        await self.catalog.mark_missing(nar.key)
        await self.catalog.touch({digest_of(1): later(150.0)}, {})
        await self.catalog.mark_missing(twin.key)
        await self.twins.part(twin.key)
        found = [await self.catalog.nar(key) for key in (nar.key, twin.key)]
        self.assertEqual(
            [each and each.last_used_at for each in found], [later(50.0), later(150.0)]
        )

    async def test_join_of_nothing(self) -> None:
        """Without an original nothing is written, whichever of the two rows comes first."""
        for number in range(6):
            twin = twin_of(stored(number))
            await self.assert_raises(NotFound, self.twins.join(twin, key_of(number)))
            await self.hold(number, nar_hash=hash_of("other"))
            await self.assert_raises(NotFound, self.twins.join(twin, key_of(number)))
            self.assertIsNone(await self.catalog.nar(twin.key))

    async def test_join_of_lost_bytes(self) -> None:
        """An original whose bytes were removed meanwhile gets no twin."""
        nar = await self.hold(1)
        await self.removals.discard([nar.key])
        await self.assert_raises(NotFound, self.twins.join(twin_of(nar), nar.key))
        self.assertIsNone(await self.catalog.nar(twin_of(nar).key))

    async def test_join_of_a_blocked_nar(self) -> None:
        """A NAR that is blocked gets no twin."""
        nar = await self.hold(1)
        assert nar.nar_hash is not None
        await self.removals.block(
            [Block(digest=digest_of(2), hashes=(nar.nar_hash,), blocked_at=EARLY)]
        )
        await self.assert_raises(Blocked, self.twins.join(twin_of(nar), nar.key))

    async def test_join_under_an_old_lease(self) -> None:
        """If a later lease has stored the twin, nothing is written."""
        nar = await self.hold(1)
        await self.catalog.mark_stored(twin_of(nar), 7)
        await self.assert_raises(Conflict, self.twins.join(twin_of(nar), nar.key, 6))
        found = await self.catalog.narinfo(digest_of(1))
        self.assertEqual(found and found[1].key, nar.key)

    async def test_part(self) -> None:
        """The narinfo names the original again, from which another twin may be made."""
        nar = await self.hold(1)
        told = await self.catalog.narinfo(digest_of(1))
        twin = twin_of(nar)
        await self.twins.join(twin, nar.key)
        self.assertTrue(await self.twins.part(twin.key))
        self.assertEqual(await self.catalog.narinfo(digest_of(1)), told)
        self.assertEqual(await self.wanted(), [nar.key])
        self.assertTrue(await self.twins.part(twin.key))

    async def test_part_of_nothing(self) -> None:
        """A NAR that is no twin, and a twin whose original is gone, do not part."""
        nar = await self.hold(1)
        twin = twin_of(nar)
        self.assertFalse(await self.twins.part(twin.key))
        self.assertFalse(await self.twins.part(nar.key))
        await self.twins.join(twin, nar.key)
        await self.catalog.forget_nar(nar.key)
        self.assertFalse(await self.twins.part(twin.key))
        found = await self.catalog.narinfo(digest_of(1))
        self.assertEqual(found and found[1].key, twin.key)

    async def test_replaced(self) -> None:
        """An original is listed some time after the join and after its last use."""
        nar = await self.hold(1, last_used_at=later(50.0))
        await self.twins.join(twin_of(nar), nar.key)

        async def gone_by(moment: datetime) -> list[NarKey]:
            return [idle.nar.key for idle in await self.twins.replaced(moment, 9)]

        self.assertEqual(await gone_by(LATE), [])
        self.assertEqual(await gone_by(later(101.0)), [nar.key])
        await self.catalog.touch({}, {nar.key: later(200.0)})
        self.assertEqual(await gone_by(later(101.0)), [])
        found = await self.twins.replaced(later(201.0), 9)
        self.assertEqual(
            [(idle.nar.key, idle.used_at) for idle in found], [(nar.key, later(200.0))]
        )
        evicted = await self.catalog.evict(found)
        self.assertEqual([each.nar.key for each in evicted], [nar.key])
        self.assertEqual(await gone_by(later(201.0)), [])

    async def test_not_replaced(self) -> None:
        """An original stays without a stored twin, with its own narinfo, or without an upstream."""
        away, named, alone = await self.hold(1), await self.hold(2), await self.hold(3)
        for nar in (away, named, alone):
            await self.twins.join(twin_of(nar), nar.key)
        await self.catalog.mark_missing(twin_of(away).key)
        await self.catalog.add_narinfo(entry(2), named)
        await self.catalog.mark_stored(evolve(alone, upstream="", recompressed_at=LATE))
        await self.twins.tried((await self.hold(4, has_narinfo=False)).key, LATE)
        self.assertEqual(await self.twins.replaced(later(1000.0), 9), [])

    async def test_removal(self) -> None:
        """With the last narinfo of a twin its original is removed, too, and not earlier."""
        nar = await self.hold(1)
        twin = twin_of(nar)
        await self.twins.join(twin, nar.key)
        await self.catalog.add_narinfo(entry(2), twin)
        other = await self.hold(3, nar_hash=nar.nar_hash, has_narinfo=False)
        erased = await self.removals.erase([digest_of(2)])
        self.assertEqual(erased.nars, ())
        erased = await self.removals.erase([digest_of(1)])
        self.assertEqual({each.nar.key for each in erased.nars}, {nar.key, twin.key})
        self.assertEqual(set(erased.keys), {nar.key, twin.key})
        self.assertIsNone(await self.catalog.nar(nar.key))
        self.assertEqual(await self.catalog.stored_bytes(), other.stored_size)

    async def test_removal_of_a_parted_path(self) -> None:
        """With the narinfo of an original its twin is removed, too."""
        nar = await self.hold(1)
        await self.twins.join(twin_of(nar), nar.key)
        await self.twins.part(twin_of(nar).key)
        erased = await self.removals.erase([digest_of(1)], keeps_nars=True)
        self.assertEqual((erased.nars, erased.digests), ((), (digest_of(1),)))
        await self.catalog.add_narinfo(entry(1), nar)
        erased = await self.removals.erase([digest_of(1)])
        self.assertEqual({each.nar.key for each in erased.nars}, {nar.key, twin_of(nar).key})
        self.assertEqual(await self.catalog.stored_bytes(), 0)
