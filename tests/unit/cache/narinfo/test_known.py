"""NarInfoMemory: rendered narinfos, bounded in bytes."""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.narinfo.state import KnownNarInfo, NarInfoMemory, known
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.ranges import entity_tag
from tests.fakes.samples import UPSTREAM_KEY, Sample, sample

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def item(of: Sample) -> KnownNarInfo:
    vetting = NarInfoVerifier(trusted=(UPSTREAM_KEY.public,), own=None, name="here")
    vetted = vetting.vet(of.narinfo, digest=of.digest, upstream="http://u", now=NOW)
    return known(vetted.entry, vetted.nar, "u")


class NarInfoMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = NarInfoMemory(100_000)
        self.samples = [sample(name, 1000) for name in "abc"]
        self.items = [item(one) for one in self.samples]

    def test_item_is_what_is_served(self) -> None:
        """A held narinfo is its text and the facts that are needed to judge it."""
        held = self.items[0]
        told = evolve(self.samples[0].narinfo, url=self.samples[0].key.url)
        self.assertEqual(told.render(), held.text)
        self.assertEqual(entity_tag(held.text), held.tag)
        self.assertEqual(NOW.timestamp(), held.fetched_at)
        self.assertFalse(held.nar.is_stored)
        self.assertTrue(evolve(held, nar=evolve(held.nar, stored_at=NOW)).nar.is_stored)

    def test_put_get_drop(self) -> None:
        """A held narinfo is found by its hash part and by its NAR, until it is dropped."""
        held = self.items[0]
        self.memory.put(held)
        self.memory.put(held)
        self.assertEqual(1, len(self.memory))
        self.assertIs(held, self.memory.get(held.digest))
        self.assertIs(held.nar, self.memory.nar(held.nar.key))
        self.assertEqual({held.digest}, self.memory.digests_of(held.nar.key))
        self.memory.drop(held.digest)
        self.memory.drop(held.digest)
        self.assertIsNone(self.memory.get(held.digest))
        self.assertIsNone(self.memory.nar(held.nar.key))
        self.assertEqual(
            (set(), 0, {}),
            (
                self.memory.digests_of(held.nar.key),
                self.memory._by_digest.size,
                self.memory._by_key,
            ),
        )

    def test_paths_that_share_a_nar_are_dropped_together(self) -> None:
        """When a NAR's state changes, each narinfo of it is read again."""
        first, other, third = self.items
        second = evolve(other, nar=first.nar)
        for one in (first, second, third):
            self.memory.put(one)
        self.memory.drop(first.digest)
        self.assertIs(first.nar, self.memory.nar(first.nar.key))
        self.memory.put(first)
        self.memory.drop_nar(first.nar.key)
        self.assertEqual(
            [None, None, third], [self.memory.get(i.digest) for i in (first, second, third)]
        )

    def test_bound_in_bytes_least_recently_used_goes(self) -> None:
        """Memory is bounded, and frequently used narinfos stay."""
        size = len(self.items[0].text) + 670
        self.memory = NarInfoMemory(2 * size + 10)
        first, second, third = self.items
        self.memory.put(first)
        self.memory.put(second)
        self.memory.get(first.digest)
        self.memory.put(third)
        self.assertIsNone(self.memory.get(second.digest))
        self.assertEqual(2, len(self.memory))
        self.assertLessEqual(self.memory._by_digest.size, 2 * size + 10)

    def test_no_room_holds_nothing(self) -> None:
        """A memory of size 0 holds nothing."""
        memory = NarInfoMemory(0)
        memory.put(self.items[0])
        self.assertEqual(0, len(memory))

    def test_changes_are_counted(self) -> None:
        """A reader of the catalog can see whether a NAR has changed since."""
        before = self.memory.changes
        self.memory.put(self.items[0])
        self.assertEqual(before, self.memory.changes)
        self.memory.drop_nar(self.items[1].nar.key)
        self.assertNotEqual(before, self.memory.changes)

    def test_one_that_is_too_large_drives_out_no_other_one(self) -> None:
        """It is not held, and neither is an older narinfo of its hash part."""
        small, large = self.items[0], evolve(self.items[1], text=self.items[1].text * 10)
        memory = NarInfoMemory(len(small.text) + 700)
        memory.put(small)
        memory.put(large)
        self.assertIsNone(memory.get(large.digest))
        self.assertIs(small, memory.get(small.digest))

    def test_a_narinfo_that_is_held_no_more_is_told_of(self) -> None:
        """The web layer learns when a held narinfo is dropped or replaced."""
        told: list[str] = []
        self.memory.forgotten = told.append
        first, second, third = self.items
        self.memory.put(first)
        self.assertEqual([], told)
        self.memory.put(evolve(first))
        self.memory.drop_nar(first.nar.key)
        self.memory.drop_nar(first.nar.key)
        self.assertEqual([first.digest] * 2, told)
        self.memory.put(second)
        self.memory.put(third)
        self.memory.clear()
        self.assertEqual({second.digest, third.digest}, set(told[2:]))
        self.assertEqual(0, len(self.memory))
        small = NarInfoMemory(1)
        small.forgotten = told.append
        small.put(first)
        self.assertEqual(first.digest, told[-1])
