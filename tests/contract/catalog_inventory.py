"""The contract of every Inventory: sizes and ages, eviction and forgetting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from ncps.errors import Conflict
from ncps.nix.narurl import NarKey
from ncps.ports import Forgotten, Inventory
from ncps.ports.catalog import NEVER_ASKED_FOR
from tests.contract.running import Contract, start
from tests.contract.samples import (
    EARLY,
    digest_of,
    entry,
    key_of,
    later,
    narinfo,
    record,
    stored,
)


class InventoryContract(Contract):
    """Sizes and ages, eviction and forgetting."""

    catalog: Inventory

    async def stored_bytes(self) -> int:
        """Return the counter, after a check that it is right."""
        size = await self.catalog.stored_bytes()
        self.assertEqual(await self.catalog.recount(), 0, "bytes the counter was off")
        self.assertEqual((await self.catalog.totals()).bytes_stored, size)
        return size

    async def idle(self, before: float = 1e6, limit: int = 100) -> list[tuple[NarKey, datetime]]:
        found = await self.catalog.idle(later(before), limit)
        return [(idle.nar.key, idle.used_at) for idle in found]

    async def test_the_size_is_that_of_all_stored_bytes(self) -> None:
        """All calls that store, replace or forget bytes keep the count."""
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
        """A write that is refused because of a later lease does not change the count."""
        await self.catalog.mark_stored(stored(1, stored_size=10), fence=2)
        with self.assertRaises(Conflict):
            await self.catalog.mark_stored(stored(1, stored_size=99), fence=1)
        self.assertEqual(await self.stored_bytes(), 10)

    async def test_many_calls_at_the_same_time_are_counted_right(self) -> None:
        """Fifty NARs stored, stored again and removed at the same time leave the right count."""
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
        """The time of its creation is in the past and does not change."""
        made = await self.catalog.created_at()
        self.assertLess(made, datetime.now(UTC) + timedelta(minutes=5))
        self.assertEqual(await self.catalog.created_at(), made)

    async def test_a_catalog_tells_the_time(self) -> None:
        """The time is the time of day, to the second, in UTC."""
        before = datetime.now(UTC)
        told = await self.catalog.time()
        self.assertLess(before - timedelta(seconds=2), told)
        self.assertLess(told, datetime.now(UTC) + timedelta(seconds=1))

    async def test_the_longest_unwanted_come_first(self) -> None:
        """The later use of NAR and narinfo counts; storing counts if a NAR has no use."""
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
            (key_of(3), later(2)),
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

    async def test_an_evicted_nar_can_be_fetched_again(self) -> None:
        """The bytes are recorded as removed; facts, origin and narinfos stay."""
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

    async def test_only_an_unchanged_nar_is_evicted(self) -> None:
        """A NAR that was used, stored again or removed after the query stays unchanged."""
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

    async def test_unused_records_are_forgotten(self) -> None:
        """A record neither stored, used nor fetched since is dropped with its narinfos."""
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
        """No more records than requested are dropped in one call."""
        for number in range(5):
            await self.catalog.add_narinfo(entry(number), record(number))
        for left, is_all in ((3, False), (1, False), (0, True)):
            forgotten = await self.catalog.forget_unused(later(100), later(200), 2)
            self.assertEqual(is_all, forgotten.is_all)
            self.assertEqual((await self.catalog.totals()).narinfos, left)

    async def test_a_record_without_times_is_given_one(self) -> None:
        """A NAR whose narinfo has left it stays as long as clients may remember its URL."""
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
        """If nothing of a batch may be deleted yet, the result says that there are more."""
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

    async def test_an_only_copy_is_not_idle_among_the_others(self) -> None:
        """An upload that no upstream has is listed separately; one that an upstream has is not."""
        await self.catalog.mark_stored(stored(1, uploaded_at=EARLY, upstream="", stored_size=7))
        await self.catalog.mark_stored(stored(2, uploaded_at=EARLY))
        await self.catalog.mark_stored(stored(3, upstream=""))
        self.assertEqual({key for key, _ in await self.idle()}, {key_of(2), key_of(3)})
        [only] = await self.catalog.idle(later(60), 10, only_copies=True)
        self.assertEqual(only.nar, await self.catalog.nar(key_of(1)))
        self.assertEqual(only.nar.uploaded_at, EARLY)
        self.assertEqual(await self.catalog.only_copies(), 7)
        await self.catalog.settle()
        await self.catalog.mark_missing(key_of(1))
        self.assertEqual(await self.catalog.only_copies(), 0)

    async def test_an_unused_prefetched_nar_is_evicted_first(self) -> None:
        """A NAR that was prefetched is evicted before all used ones, until a client asks for it."""
        never = {"last_used_at": NEVER_ASKED_FOR}
        await self.catalog.mark_stored(stored(1))
        await self.catalog.mark_stored(stored(2, stored_at=later(5), **never))
        await self.catalog.mark_stored(stored(3, stored_at=later(6), **never))
        self.assertEqual(
            await self.idle(),
            [(key_of(2), NEVER_ASKED_FOR), (key_of(3), NEVER_ASKED_FOR), (key_of(1), EARLY)],
        )
        await self.catalog.touch({}, {key_of(3): later(7)})
        self.assertEqual([key for key, _ in await self.idle()], [key_of(n) for n in (2, 1, 3)])
        [idle] = await self.catalog.idle(later(60), 1)
        [evicted] = await self.catalog.evict([idle])
        self.assertEqual(evicted.nar.key, key_of(2))

    async def test_the_use_of_its_narinfo_keeps_a_prefetched_nar(self) -> None:
        """A client that received the narinfo relies on the NAR."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.catalog.mark_stored(stored(1, last_used_at=NEVER_ASKED_FOR))
        await self.catalog.touch({digest_of(1): later(8)}, {})
        self.assertEqual(await self.idle(), [(key_of(1), later(8))])

    async def test_a_use_is_not_forgotten_by_fetching_ahead(self) -> None:
        """A NAR that was used, then lost, and then prefetched, counts as used."""
        await self.catalog.mark_stored(stored(1, last_used_at=later(3)))
        await self.catalog.mark_missing(key_of(1))
        await self.catalog.mark_stored(stored(1, last_used_at=NEVER_ASKED_FOR))
        nar = await self.catalog.nar(key_of(1))
        assert nar is not None
        self.assertEqual(nar.last_used_at, later(3))

    async def test_fetching_ahead_makes_nothing_newer(self) -> None:
        """For a NAR that was used before it was prefetched, the use counts and not the storing."""
        await self.catalog.mark_stored(stored(1, last_used_at=later(3)))
        await self.catalog.mark_missing(key_of(1))
        await self.catalog.add_narinfo(entry(2), record(2))
        await self.catalog.touch({digest_of(2): later(2)}, {})
        for number in (1, 2):
            ahead = stored(number, stored_at=later(9), last_used_at=NEVER_ASKED_FOR)
            await self.catalog.mark_stored(ahead)
        await self.catalog.mark_stored(stored(3, last_used_at=later(5)))
        await self.catalog.mark_stored(stored(4, stored_at=later(7)))
        self.assertEqual(
            await self.idle(),
            [
                (key_of(2), later(2)),
                (key_of(1), later(3)),
                (key_of(3), later(5)),
                (key_of(4), later(7)),
            ],
        )

    async def test_an_upload_stays_one(self) -> None:
        """The narinfo of an upload does not change its time; its origin may be added."""
        await self.catalog.mark_stored(stored(1, uploaded_at=EARLY, upstream="", origin_url=""))
        await self.catalog.add_narinfo(entry(1), record(1, upstream="", origin_url=""))
        nar = await self.catalog.nar(key_of(1))
        assert nar is not None
        self.assertEqual((nar.uploaded_at, nar.is_only_copy), (EARLY, True))
        await self.catalog.add_narinfo(entry(1), record(1))
        nar = await self.catalog.nar(key_of(1))
        assert nar is not None
        self.assertEqual((nar.uploaded_at, nar.is_only_copy), (EARLY, False))

    async def test_an_upload_without_a_narinfo_is_abandoned_after_a_while(self) -> None:
        """Uploads without a narinfo are listed if unused for a while, oldest first."""
        await self.catalog.mark_stored(stored(1, uploaded_at=later(5), stored_at=later(5)))
        await self.catalog.mark_stored(stored(2, uploaded_at=EARLY))
        await self.catalog.mark_stored(stored(3, uploaded_at=EARLY, last_used_at=later(50)))
        await self.catalog.mark_stored(stored(4))
        await self.catalog.mark_stored(stored(5, uploaded_at=EARLY))
        await self.catalog.add_narinfo(entry(5), record(5))
        found = await self.catalog.abandoned(later(30), 10)
        expected = [(key_of(2), EARLY), (key_of(1), later(5))]
        self.assertEqual([(idle.nar.key, idle.used_at) for idle in found], expected)
        self.assertEqual(
            [idle.nar.key for idle in await self.catalog.abandoned(later(30), 1)], [key_of(2)]
        )
        self.assertEqual(await self.catalog.abandoned(later(0), 10), [])
