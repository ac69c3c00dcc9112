"""Eviction: which NARs are removed, which stay, and what an interrupted run leaves."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import capturedLogs

from ncps.cache.cluster import lease_of
from ncps.cache.upkeep import evict
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord
from tests.contract.samples import digest_of, entry, key_of, narinfo, stored
from tests.contract.twins import twin_of
from tests.fakes.clocks import SetClock
from tests.fakes.metrics import counted, observed
from tests.fakes.samples import sample
from tests.unit.cache.upkeep.rig import GRACE_S, HOUR, SIZE, TRUSTED, EvictionCase


class EvictionTests(EvictionCase):
    def test_a_store_within_its_size_is_left_alone(self) -> None:
        """Exactly the allowed number of bytes is not too much; not even a lease is taken."""
        for number in range(10):
            self.keep(number)
        self.check()
        self.assertEqual(len(self.left()), 10)
        self.assertEqual(self.runs, 0)

    def test_the_oldest_go_until_the_low_mark(self) -> None:
        """One byte too many removes the oldest NARs, and no more than necessary."""
        for number in range(11):
            self.keep(number)
        with capturedLogs() as lines:
            self.check()
        self.assertEqual(self.left(), list(range(8)))
        self.assertRemoved(nars=3, freed=3 * SIZE)
        self.assertEqual(3, counted(self.metrics.lru_narinfos))
        self.assertEqual((1, 0.0), observed(self.metrics.lru_seconds))
        self.assertEqual([0], [line["passed"] for line in lines])

    def test_originals_of_twins_go_first(self) -> None:
        """An original goes before NARs that were unused for longer, but not in its grace.

        Its row stays, and names the upstream that answers its URL.
        """
        for number in range(9):
            self.keep(number)
        for number, ago_s in ((20, HOUR), (21, 1.0)):
            original = self.keep(number, ago_s=ago_s)
            twin = twin_of(original, stored_size=SIZE, stored_at=self.at(ago_s))
            self.get(self.world.twins.join(twin, original.key))
            self.store.put(twin.key, bytes(SIZE))
            self.get(self.sidecars.delete(digest_of(number)))
        self.check()
        self.assertNotIn(key_of(20), self.store.objects)
        self.assertIn(key_of(21), self.store.objects)
        row = self.catalog.records[key_of(20)]
        self.assertEqual((False, True), (row.is_stored, row.upstream != ""))
        self.assertEqual(5, sum(key_of(number) in self.store.objects for number in range(9)))

    def test_a_schedule_makes_room_in_advance(self) -> None:
        """A scheduled run reduces the store to the low mark, also below the limit."""
        for number in range(9):
            self.keep(number)
        self.get(self.eviction.run())
        self.assertEqual(self.left(), list(range(8)))
        self.get(self.eviction.run())
        self.assertEqual(self.runs, 1)

    def test_many_are_removed_in_batches(self) -> None:
        """A run takes several batches and queries, if it needs them."""
        self.patch(evict, "SCAN", 7)
        self.patch(evict, "BATCH", 3)
        for number in range(30):
            self.keep(number)
        self.check()
        self.assertEqual(self.left(), list(range(8)))
        self.assertEqual(self.runs, 1)

    def test_a_removed_nar_is_fetched_again_from_its_origin(self) -> None:
        """An evicted NAR is served at its old URL, from the upstream it came from."""
        hello = sample("hello", 900)
        self.origin.add(hello)
        self.learn(hello)
        self.download(hello.key)
        self.clock.advance(GRACE_S + 1)
        for number in range(10):
            self.keep(number, ago_s=GRACE_S + 0.5)
        self.check()
        record = self.catalog.records[hello.key]
        self.assertEqual((record.is_stored, record.upstream), (False, self.origin.base_url))
        self.assertNotIn(hello.key, self.store.objects)
        self.assertNotIn(hello.digest, self.sidecars.texts)
        self.learn(hello)
        self.assertEqual(self.download(hello.key), hello.file)
        self.assertTrue(self.catalog.records[hello.key].is_stored)

    def test_others_are_told(self) -> None:
        """An evicted NAR is dropped from memory, here and in other processes."""
        for number in range(11):
            self.keep(number)
        self.get(self.narinfos.get(digest_of(10)))
        self.clock.advance(GRACE_S + 1)
        for number in range(8):
            self.uses.nar(key_of(number))
        self.assertEqual(len(self.memory), 1)
        self.check()
        self.assertEqual(len(self.memory), 0)
        told = [notice.name for notice in self.notices.published if notice.kind == "nar"]
        self.assertEqual(set(told), {key_of(number).file_name for number in (8, 9, 10)})


def swinging() -> SetClock:
    """A clock whose time of day can be set, and is right at first."""
    clock = SetClock()
    clock.ahead = 0.0
    return clock


class SetClockTests(EvictionCase):
    """The time of day is set while the daemon runs."""

    new_clock = staticmethod(swinging)
    clock: SetClock

    def test_set_forward_what_is_in_use_stays(self) -> None:
        """After the clock was set an hour forward, a NAR used a moment ago is not idle."""
        for number in range(12):
            self.keep(number, ago_s=GRACE_S / 2)
        self.clock.ahead = HOUR
        self.check()
        self.assertEqual(len(self.left()), 12)
        self.clock.advance(GRACE_S + 1)
        self.check()
        self.assertEqual(len(self.left()), 8)

    def test_order_of_uses_outlives_a_step(self) -> None:
        """A NAR that was used after that is younger than those before."""
        for number in range(11):
            self.keep(number)
        self.uses.nar(key_of(9))
        self.clock.advance(1)
        self.clock.ahead = HOUR
        self.uses.nar(key_of(10))
        self.clock.advance(2 * HOUR)
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 9, 10])

    def test_set_back_the_store_still_shrinks(self) -> None:
        """NARs with a time in the future stay longest; the others are removed as always."""
        for number in range(11):
            self.keep(number)
        self.uses.nar(key_of(10))
        self.get(self.uses.flush())
        self.clock.ahead = -HOUR
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.clock.advance(2 * HOUR)
        for number in range(20, 28):
            self.keep(number, ago_s=GRACE_S + 1)
        self.check()
        self.assertEqual(self.left(), list(range(20, 28)))


class StayingTests(EvictionCase):
    """NARs that stay although they are old."""

    def test_uses_in_memory_count(self) -> None:
        """A NAR that was used since the last flush does not count as idle."""
        for number in range(11):
            self.keep(number)
        self.uses.nar(key_of(10))
        self.uses.narinfo(digest_of(9))
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 9, 10])

    def test_what_was_wanted_a_moment_ago_stays(self) -> None:
        """Within the grace period nothing is removed, even if the store is too full."""
        for number in range(12):
            self.keep(number, ago_s=GRACE_S - number)
        self.check()
        self.assertEqual(len(self.left()), 12)
        self.clock.advance(2)
        self.check()
        self.assertEqual(len(self.left()), 10)

    def test_a_use_between_reading_and_marking_counts(self) -> None:
        """A NAR that is used after the candidates were read stays, and others are removed."""
        for number in range(11):
            self.keep(number)
        self.meddled.meddle.append(
            lambda: self.get(self.catalog.touch({}, {key_of(10): self.at(0)}))
        )
        with capturedLogs() as lines:
            self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.assertEqual([1], [line["passed"] for line in lines])

    def test_a_use_noted_in_memory_meanwhile_counts(self) -> None:
        """A use that is noted while leases are taken keeps a NAR, too."""
        for number in range(11):
            self.keep(number)
        take = self.leases.try_hold

        async def used(name: str) -> object:
            self.uses.nar(key_of(10))
            return await take(name)

        self.patch(self.leases, "try_hold", used)
        self.check()
        self.assertIn(10, self.left())

    def test_arriving_nars_stay(self) -> None:
        """A NAR that this process fetches is passed over."""
        for number in range(11):
            self.keep(number)
        self.on_their_way.add(key_of(9))
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 9])

    def test_nars_leased_by_another_process_stay(self) -> None:
        """A NAR that another process fetches or adopts is passed over."""
        for number in range(11):
            self.keep(number)
        lease = self.get(self.leases.try_hold(lease_of(key_of(10))))
        assert lease is not None
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.get(lease.release())

    def test_a_shared_nar_stays_with_any_of_its_narinfos(self) -> None:
        """One narinfo in use keeps the NAR for all its narinfos; without one, it is removed."""
        for number in range(11):
            self.keep(number)
        other = entry(50, narinfo=narinfo(50, url=key_of(10).url), verified_by=TRUSTED)
        self.get(self.catalog.add_narinfo(other, self.catalog.records[key_of(10)]))
        self.get(self.sidecars.put(digest_of(50), b"text"))
        self.uses.narinfo(digest_of(50))
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.clock.advance(20_000)
        for number in range(7):
            self.uses.nar(key_of(number))
        for number in range(20, 26):
            self.keep(number, ago_s=0)
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, *range(20, 26)])
        self.assertNotIn(digest_of(50), self.sidecars.texts)
        self.assertIn(digest_of(50), self.catalog.entries)


class ObjectTests(EvictionCase):
    """Bytes that are stored under another name."""

    def recompressed(self, number: int) -> NarRecord:
        key = NarKey(key_of(number).name, "")
        record = stored(
            number,
            key=key,
            compression="none",
            encoding="zstd",
            stored_size=SIZE,
            stored_at=self.at(99_999),
        )
        self.get(self.catalog.mark_stored(record))
        return record

    def test_the_object_that_is_really_there_goes(self) -> None:
        """A NAR kept compressed by the Go program leaves nothing behind."""
        self.recompressed(1)
        self.store.put(NarKey(key_of(1).name, "zst"), bytes(SIZE))
        for number in range(10, 20):
            self.keep(number)
        self.check()
        self.assertNotIn(NarKey(key_of(1).name, "zst"), self.store.objects)
        self.assertEqual(counted(self.metrics.lru_freed), 3 * SIZE)

    def test_an_object_of_two_nars_goes_with_the_last(self) -> None:
        """Bytes that also belong to another NAR stay, and are not counted as freed."""
        plain = self.recompressed(1)
        packed = NarKey(key_of(1).name, "zst")
        newer = stored(1, key=packed, encoding="xz", stored_size=SIZE, stored_at=self.at(0))
        self.get(self.catalog.mark_stored(newer))
        self.store.put(packed, bytes(SIZE))
        for number in range(10, 17):
            self.keep(number)
        self.get(self.eviction.run())
        self.assertFalse(self.catalog.records[plain.key].is_stored)
        self.assertIn(packed, self.store.objects)
        self.assertRemoved(nars=1, freed=0)

    def test_bytes_that_were_gone_are_not_counted_as_freed(self) -> None:
        """Only bytes that were really there count."""
        for number in range(11):
            self.keep(number)
        del self.store.objects[key_of(10)]
        self.check()
        self.assertRemoved(nars=3, freed=2 * SIZE)

    def test_a_row_written_in_between_does_not_outlive_its_bytes(self) -> None:
        """No row is wrong if a process without a lease stores a NAR just before the removal."""
        for number in range(11):
            self.keep(number)
        delete = self.store.delete
        record = self.catalog.records[key_of(10)]

        async def stored_again(key: NarKey) -> bool:
            if key == record.key:
                newer = evolve(record, stored_at=self.at(0))
                self.patch(self.objects, "is_owned", self._nobody)
                await self.catalog.mark_stored(newer)
            return await delete(key)

        self.patch(self.store, "delete", stored_again)
        self.check()
        self.assertFalse(self.is_stored(10))

    async def _nobody(self, key: NarKey) -> bool:
        return False
