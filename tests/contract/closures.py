"""The contracts of pins, references and removals, beside an inventory of the same catalog."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import gatherResults

from ncps.nix.narurl import NarKey
from ncps.ports import (
    Block,
    Blocked,
    Forgotten,
    Inventory,
    PathGraph,
    Pin,
    Pins,
    PinTotals,
    Removals,
)
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


def pin(number: int, **changes: Any) -> Pin:
    return evolve(Pin(digest=digest_of(number), created_at=EARLY), **changes)


class ClosuresContract(Contract):
    catalog: Inventory
    pins: Pins
    references: PathGraph
    removals: Removals

    async def keep(self, number: int, **changes: Any) -> None:
        """Record a path, with its NAR stored."""
        nar = stored(number, **changes)
        await self.catalog.mark_stored(nar)
        await self.catalog.add_narinfo(entry(number), nar)

    async def idle(self) -> list[NarKey]:
        return [each.nar.key for each in await self.catalog.idle(later(1e6), 100)]


class PinsContract(ClosuresContract):
    async def test_no_pins(self) -> None:
        """An empty catalog has no pins; removing a pin that does not exist is no error."""
        self.assertEqual(await self.pins.all(), [])
        self.assertIsNone(await self.pins.find(digest_of(1)))
        self.assertFalse(await self.pins.remove(digest_of(1)))
        self.assertEqual(await self.pins.totals(), PinTotals())
        self.assertEqual(await self.pins.holders([digest_of(1)]), {})
        self.assertEqual(await self.pins.purge(), 0)
        await self.pins.hold(digest_of(1), [digest_of(2)])
        self.assertEqual(await self.pins.holders([digest_of(2)]), {})

    async def test_a_pin_comes_back_as_it_was(self) -> None:
        """A second pin of a root changes label and end, and keeps the facts about its closure."""
        first = pin(1, label="wür", expires_at=later(60), is_fetching=True)
        self.assertTrue(await self.pins.add(first))
        self.assertEqual(await self.pins.find(digest_of(1)), first)
        seen = evolve(first, paths=3, missing=1, size=2**40, looked_at=later(1))
        await self.pins.look(seen)
        self.assertEqual(await self.pins.all(), [seen])
        self.assertFalse(await self.pins.add(pin(1, label="b", created_at=later(9))))
        expected = evolve(seen, label="b", expires_at=None)
        self.assertEqual(await self.pins.find(digest_of(1)), expected)
        self.assertTrue(await self.pins.remove(digest_of(1)))
        self.assertFalse(await self.pins.remove(digest_of(1)))

    async def test_a_pinned_path_is_neither_evicted_nor_forgotten(self) -> None:
        """The NAR is no candidate, also if it was one a moment ago; a root may be missing."""
        for number in (1, 2, 3):
            await self.keep(number)
        await self.catalog.add_narinfo(entry(4), record(4))
        candidates = await self.catalog.idle(later(60), 10)
        self.assertEqual(len(candidates), 3)
        await self.pins.add(pin(9))
        await self.pins.hold(digest_of(9), [digest_of(2), digest_of(4), digest_of(7)])
        self.assertEqual(
            await self.idle(), [e.nar.key for e in candidates if e.nar.key != key_of(2)]
        )
        evicted = await self.catalog.evict(candidates)
        self.assertEqual({each.nar.key for each in evicted}, {key_of(1), key_of(3)})
        forgotten = await self.catalog.forget_unused(later(1e6), later(2e6), 10)
        self.assertEqual(set(forgotten.keys), {key_of(1), key_of(3)})
        self.assertIsNotNone(await self.catalog.narinfo(digest_of(4)))
        await self.pins.remove(digest_of(9))
        self.assertEqual(await self.idle(), [key_of(2)])
        found = await self.catalog.forget_unused(later(1e6), later(2e6), 10)
        self.assertEqual(found, Forgotten((key_of(4),), is_all=True))

    async def test_a_nar_of_two_paths_is_pinned_by_one(self) -> None:
        """The NAR is counted once, and stays as long as one of the pins does."""
        await self.keep(1)
        await self.catalog.add_narinfo(entry(2), stored(1))
        for root in (1, 2):
            await self.pins.add(pin(root))
            await self.pins.hold(digest_of(root), [digest_of(root)])
        self.assertEqual(await self.pins.totals(), PinTotals(2, 1, 1001, 0))
        await self.pins.look(pin(2, missing=5))
        await self.pins.remove(digest_of(1))
        self.assertEqual(await self.pins.totals(), PinTotals(1, 1, 1001, 5))
        self.assertEqual(await self.idle(), [])

    async def test_many_paths(self) -> None:
        """A thousand paths are pinned, listed by their roots, and released."""
        paths = [digest_of(number) for number in range(1000)]
        await self.pins.add(pin(5))
        await self.pins.add(pin(6))
        await self.pins.hold(digest_of(5), paths)
        await self.pins.hold(digest_of(6), paths[:1])
        await self.pins.hold(digest_of(5), paths[:3])
        holders = await self.pins.holders([*paths, digest_of(5000)])
        self.assertEqual(set(holders), set(paths))
        both = sorted([digest_of(5), digest_of(6)])
        self.assertEqual((list(holders[paths[0]]), list(holders[paths[1]])), (both, [digest_of(5)]))
        await self.pins.remove(digest_of(5))
        self.assertEqual(await self.pins.holders(paths), {paths[0]: [digest_of(6)]})
        self.assertEqual(await self.pins.purge(), 0)

    async def test_pins_that_are_to_be_looked_at(self) -> None:
        """Pins never checked come first, then the longest unchecked ones; complete ones later."""
        seen: dict[int, tuple[int, datetime | None]] = {
            1: (0, None),
            2: (1, later(10)),
            3: (0, later(20)),
            4: (1, later(30)),
            5: (0, later(5)),
        }
        for number, (missing, at) in seen.items():
            await self.pins.add(pin(number))
            await self.pins.look(pin(number, missing=missing, looked_at=at))
        found = await self.pins.due(missing_before=later(25), whole_before=later(7), limit=9)
        self.assertEqual([each.digest for each in found], [digest_of(n) for n in (1, 5, 2)])
        found = await self.pins.due(missing_before=later(99), whole_before=later(99), limit=2)
        self.assertEqual([each.digest for each in found], [digest_of(n) for n in (1, 5)])

    async def test_pins_end(self) -> None:
        """Pins whose end has passed are listed; those without an end never are."""
        for number, at in ((1, later(10)), (2, later(11)), (3, None)):
            await self.pins.add(pin(number, expires_at=at))
        self.assertEqual(
            [each.digest for each in await self.pins.expired(later(10))], [digest_of(1)]
        )


class PathGraphContract(ClosuresContract):
    async def test_facts_of_paths(self) -> None:
        """Each path has its references without itself, its NAR, and whether that is stored."""
        await self.keep(1)
        bare = narinfo(2, references=())
        await self.catalog.add_narinfo(entry(2, narinfo=bare), record(2))
        found = await self.references.among([digest_of(n) for n in (1, 2, 3)])
        self.assertEqual(set(found), {digest_of(1), digest_of(2)})
        one, two = found[digest_of(1)], found[digest_of(2)]
        self.assertEqual((one.references, two.references), ((digest_of(2),), ()))
        self.assertEqual((one.base, one.nar), (path_of(1).base, key_of(1)))
        self.assertEqual((one.nar_hash, one.nar_size), (hash_of("nar 1"), 5001))
        self.assertEqual((one.stored_size, two.stored_size), (1001, None))
        self.assertEqual(await self.references.among([]), {})

    async def test_all_paths_in_their_order(self) -> None:
        """Page by page, each path comes exactly once."""
        digests = sorted(digest_of(number) for number in range(30))
        for number in range(30):
            await self.catalog.add_narinfo(entry(number), record(number))
        pages = [await self.references.after("", 20)]
        pages.append(await self.references.after(max(pages[0]), 20))
        self.assertEqual([sorted(page) for page in pages], [digests[:20], digests[20:]])
        self.assertEqual(await self.references.after(digests[-1], 20), {})


class RemovalsContract(ClosuresContract):
    async def count(self) -> tuple[int, int]:
        totals = await self.catalog.totals()
        self.assertEqual(await self.catalog.recount(), 0, "the counter was off")
        return totals.narinfos, totals.nars_stored

    async def test_nothing_to_remove(self) -> None:
        """Paths and NARs that are not recorded are left out of the result."""
        self.assertEqual(await self.removals.representations(key_of(1)), [])
        self.assertEqual(await self.removals.discard([key_of(1)]), [])
        erased = await self.removals.erase([digest_of(1)])
        self.assertEqual((erased.digests, erased.nars, erased.keys), ((), (), ()))
        self.assertFalse(await self.removals.unblock(digest_of(1)))
        self.assertEqual(await self.removals.blocked(), [])

    async def test_all_representations_of_a_nar(self) -> None:
        """A NAR in another compression is one of its representations; another NAR is not."""
        await self.keep(1)
        await self.keep(2)
        plain = stored(1, key=NarKey(hash_of("nar 1").nix32, ""), compression="none")
        await self.catalog.mark_stored(plain)
        found = await self.removals.representations(key_of(1))
        self.assertEqual({nar.key for nar in found}, {key_of(1), plain.key})
        gone = await self.removals.discard([nar.key for nar in found])
        self.assertEqual({each.nar.key for each in gone}, {key_of(1), plain.key})
        self.assertEqual([each.digests for each in gone if each.digests], [(digest_of(1),)])
        self.assertEqual(await self.count(), (2, 1))
        self.assertEqual(await self.removals.discard([key_of(1)]), [])
        there = await self.catalog.nar(key_of(1))
        assert there is not None
        self.assertEqual((there.is_stored, there.origin_url), (False, stored(1).origin_url))

    async def test_a_shared_nar_stays_for_the_others(self) -> None:
        """The narinfo is removed alone; with the last narinfo the NAR is removed, too."""
        await self.keep(1)
        await self.catalog.add_narinfo(entry(2), stored(1))
        erased = await self.removals.erase([digest_of(2)])
        self.assertEqual((erased.digests, erased.nars), ((digest_of(2),), ()))
        self.assertEqual(erased.keys, (key_of(1),))
        self.assertEqual(await self.count(), (1, 1))
        erased = await self.removals.erase([digest_of(1), digest_of(7)])
        self.assertEqual([each.nar.key for each in erased.nars], [key_of(1)])
        self.assertEqual(await self.count(), (0, 0))
        self.assertIsNone(await self.catalog.nar(key_of(1)))

    async def test_a_blocked_path_never_comes_back(self) -> None:
        """Path and NAR, under any path, name or compression, stay away until unblocked."""
        await self.keep(1)
        await self.keep(3)
        await self.catalog.add_narinfo(entry(2), stored(1))
        block = Block(digest=digest_of(1), name="secret", blocked_at=later(5))
        erased = await self.removals.block([block])
        self.assertEqual(set(erased.digests), {digest_of(1), digest_of(2)})
        self.assertEqual([each.nar.key for each in erased.nars], [key_of(1)])
        self.assertEqual(await self.count(), (1, 1))
        hashes = tuple(sorted((hash_of("nar 1"), hash_of("file 1")), key=str))
        self.assertEqual(await self.removals.blocked(), [evolve(block, hashes=hashes)])
        asked = [start(self.removals.is_blocked(digest_of(number))) for number in (1, 2, 1)]
        self.assertEqual(await gatherResults(asked), [True, False, True])
        for file_hash, is_blocked in ((hashes[0], True), (hash_of("nar 3"), False)):
            self.assertEqual(await self.removals.is_blocked_file(file_hash), is_blocked)
        other = stored(8, nar_hash=hash_of("nar 1"))
        for number, nar in ((1, record(7)), (2, other), (2, stored(1))):
            with self.assertRaises(Blocked):
                await self.catalog.add_narinfo(entry(number), nar)
        with self.assertRaises(Blocked):
            await self.catalog.add_new_narinfo(entry(1), record(7))
        for nar in (other, stored(1), record(9, key=NarKey(hash_of("nar 1").nix32, ""))):
            with self.assertRaises(Blocked):
                await self.catalog.mark_stored(nar)
        self.assertEqual(await self.count(), (1, 1))
        self.assertTrue(await self.removals.unblock(digest_of(1)))
        await self.keep(1)
        self.assertEqual(await self.count(), (2, 2))

    async def test_a_path_that_is_not_here_is_blocked(self) -> None:
        """Only its hash part is known; blocking it again adds its hashes."""
        block = Block(digest=digest_of(1), blocked_at=later(5))
        self.assertEqual((await self.removals.block([block])).digests, ())
        with self.assertRaises(Blocked):
            await self.catalog.add_narinfo(entry(1), record(1))
        await self.keep(2)
        more = evolve(block, hashes=(hash_of("nar 2"),), blocked_at=later(9))
        erased = await self.removals.block([more])
        self.assertEqual(erased.digests, (digest_of(2),))
        expected = evolve(block, hashes=(hash_of("nar 2"),))
        self.assertEqual(await self.removals.blocked(), [expected])

    async def test_an_unsigned_file_hash_blocks_nothing(self) -> None:
        """FileHash is not signed: a hash that was not computed does not block other files."""
        await self.catalog.add_narinfo(entry(1), record(1))
        await self.removals.block([Block(digest=digest_of(1), blocked_at=EARLY)])
        self.assertFalse(await self.removals.is_blocked_file(hash_of("file 1")))
        self.assertTrue(await self.removals.is_blocked_file(hash_of("nar 1")))
