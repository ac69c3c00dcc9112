"""Eviction: what goes, what stays, and what is left when it is broken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.cache.cluster import lease_of
from ncps.cache.nar.objects import Objects
from ncps.cache.upkeep import evict
from ncps.cache.upkeep.evict import LEASE, Bounds, Eviction, EvictionTally
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, IdleNar, NarRecord
from tests.contract.samples import digest_of, entry, key_of, narinfo, stored
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.clocks import SetClock
from tests.fakes.samples import UPSTREAM_KEY, sample
from tests.unit.cache.rig import CoreCase

SIZE = 100
TRUSTED = str(UPSTREAM_KEY.public)
GRACE_S = 300.0
HOUR = 3600.0


class Meddled(MemoryCatalog):
    """A catalog that lets a test do something just before rows are marked."""

    def __init__(self) -> None:
        super().__init__()
        self.meddle: list[Callable[[], object]] = []

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        while self.meddle:
            self.meddle.pop()()
        return await super().evict(idle)


class EvictionCase(CoreCase):
    """A store that may hold ten NARs of a hundred bytes, and is to be left with eight."""

    def setUp(self) -> None:
        super().setUp()
        self.catalog = self.meddled = Meddled()
        self.restart()
        self.runs: list[EvictionTally] = []
        self.objects = Objects(self.world)
        self.eviction = Eviction(
            self.world,
            self.narinfos,
            self.uses,
            is_arriving=lambda key: self.nars.is_arriving(key) or key in self.on_their_way,
            bounds=Bounds(high=10 * SIZE, low=8 * SIZE, grace_s=GRACE_S),
            ended=self.runs.append,
        )
        self.on_their_way: set[NarKey] = set()

    def at(self, ago_s: float) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds() - ago_s, UTC)

    def keep(self, number: int, *, ago_s: float | None = None, size: int = SIZE) -> NarRecord:
        """Have a NAR stored, the higher its number the longer ago."""
        moment = self.at(10_000.0 + number if ago_s is None else ago_s)
        times = {"stored_at": moment, "verified_at": moment, "last_used_at": moment}
        record = stored(number, stored_size=size, **times)
        self.get(self.catalog.mark_stored(record))
        self.get(self.catalog.add_narinfo(entry(number, verified_by=TRUSTED), record))
        self.store.put(record.key, bytes(size))
        self.get(self.sidecars.put(digest_of(number), b"text"))
        return record

    def is_stored(self, number: int) -> bool:
        """Whether a NAR is there, after row, bytes and sidecar were found to agree."""
        record = self.catalog.records.get(key_of(number))
        there = record is not None and record.is_stored
        self.assertEqual(there, key_of(number) in self.store.objects, f"bytes of {number}")
        self.assertEqual(there, digest_of(number) in self.sidecars.texts, f"sidecar of {number}")
        return there

    def left(self, most: int = 30) -> list[int]:
        return [number for number in range(most) if self.is_stored(number)]

    def check(self) -> None:
        self.get(self.eviction.check())


class EvictionTests(EvictionCase):
    def test_a_store_within_its_size_is_left_alone(self) -> None:
        """As many bytes as are allowed are not too many; nothing is even leased."""
        for number in range(10):
            self.keep(number)
        self.check()
        self.assertEqual(len(self.left()), 10)
        self.assertEqual(self.runs, [])

    def test_the_oldest_go_until_the_low_mark(self) -> None:
        """One byte too many makes the oldest go, and no more than needed."""
        for number in range(11):
            self.keep(number)
        self.check()
        self.assertEqual(self.left(), list(range(8)))
        self.assertEqual(self.runs, [EvictionTally(nars=3, narinfos=3, freed=3 * SIZE)])

    def test_a_schedule_makes_room_in_advance(self) -> None:
        """A scheduled run goes down to the low mark though the limit is not reached."""
        for number in range(9):
            self.keep(number)
        self.get(self.eviction.run())
        self.assertEqual(self.left(), list(range(8)))
        self.get(self.eviction.run())
        self.assertEqual(len(self.runs), 1)

    def test_many_are_removed_in_batches(self) -> None:
        """A run goes on over as many batches and readings as it takes."""
        self.patch(evict, "SCAN", 7)
        self.patch(evict, "BATCH", 3)
        for number in range(30):
            self.keep(number)
        self.check()
        self.assertEqual(self.left(), list(range(8)))
        self.assertEqual(len(self.runs), 1)

    def test_what_was_removed_is_fetched_again_from_its_origin(self) -> None:
        """An evicted NAR is served by its old URL, from the upstream it came from."""
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
        """What memory and other processes hold of an evicted NAR is dropped."""
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
    """A clock whose time of day can be set, and is right to begin with."""
    clock = SetClock()
    clock.ahead = 0.0
    return clock


class SetClockTests(EvictionCase):
    """The time of day is set while the daemon runs."""

    new_clock = staticmethod(swinging)
    clock: SetClock

    def test_set_forward_what_is_in_use_stays(self) -> None:
        """An hour more on the clock makes nothing unwanted that was wanted a moment ago."""
        for number in range(12):
            self.keep(number, ago_s=GRACE_S / 2)
        self.clock.ahead = HOUR
        self.check()
        self.assertEqual(len(self.left()), 12)
        self.clock.advance(GRACE_S + 1)
        self.check()
        self.assertEqual(len(self.left()), 8)

    def test_order_of_uses_outlives_a_step(self) -> None:
        """What was used after the clock was set forward is younger than what was used before."""
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
        """What bears a time that is still to come stays longest; the others go as ever."""
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
    """What stays although it is old."""

    def test_uses_in_memory_count(self) -> None:
        """What was used since the last flush is not taken for idle."""
        for number in range(11):
            self.keep(number)
        self.uses.nar(key_of(10))
        self.uses.narinfo(digest_of(9))
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 9, 10])

    def test_what_was_wanted_a_moment_ago_stays(self) -> None:
        """Within the grace period nothing goes, however full the store is."""
        for number in range(12):
            self.keep(number, ago_s=GRACE_S - number)
        self.check()
        self.assertEqual(len(self.left()), 12)
        self.clock.advance(2)
        self.check()
        self.assertEqual(len(self.left()), 10)

    def test_a_use_between_reading_and_marking_counts(self) -> None:
        """Who is used after the candidates were read stays, and the next older ones go."""
        for number in range(11):
            self.keep(number)
        self.meddled.meddle.append(
            lambda: self.get(self.catalog.touch({}, {key_of(10): self.at(0)}))
        )
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.assertEqual(self.runs[0].passed_over, 1)

    def test_a_use_noted_in_memory_meanwhile_counts(self) -> None:
        """Even a use that is noted while leases are being taken keeps a NAR."""
        for number in range(11):
            self.keep(number)
        take = self.leases.try_hold

        async def used(name: str) -> object:
            self.uses.nar(key_of(10))
            return await take(name)

        self.patch(self.leases, "try_hold", used)
        self.check()
        self.assertIn(10, self.left())

    def test_what_is_arriving_stays(self) -> None:
        """A NAR that this process is fetching is passed over."""
        for number in range(11):
            self.keep(number)
        self.on_their_way.add(key_of(9))
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 9])

    def test_what_another_process_has_leased_stays(self) -> None:
        """A NAR that somebody fetches or takes over is passed over."""
        for number in range(11):
            self.keep(number)
        lease = self.get(self.leases.try_hold(lease_of(key_of(10))))
        assert lease is not None
        self.check()
        self.assertEqual(self.left(), [0, 1, 2, 3, 4, 5, 6, 10])
        self.get(lease.release())

    def test_a_shared_nar_stays_with_any_of_its_narinfos(self) -> None:
        """One narinfo in use keeps the NAR for all; without, it goes with all."""
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
    """Bytes that lie under another name."""

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
        self.assertEqual(self.runs[0].freed, 3 * SIZE)

    def test_an_object_of_two_nars_goes_with_the_last(self) -> None:
        """Bytes that another NAR's record names too stay, and are not counted as freed."""
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
        self.assertEqual((self.runs[0].nars, self.runs[0].freed), (1, 0))

    def test_bytes_that_were_gone_are_not_counted_as_freed(self) -> None:
        """Only what was really there counts."""
        for number in range(11):
            self.keep(number)
        del self.store.objects[key_of(10)]
        self.check()
        self.assertEqual((self.runs[0].nars, self.runs[0].freed), (3, 2 * SIZE))

    def test_a_row_written_in_between_does_not_outlive_its_bytes(self) -> None:
        """Whoever stores a NAR without its lease, just before the bytes go, leaves no lie."""
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


class TroubleTests(EvictionCase):
    """Two at once, lost leases, and what is away."""

    def fill(self) -> None:
        for number in range(11):
            self.keep(number)

    def test_another_process_is_at_it(self) -> None:
        """While somebody has the lease nothing is done, and later it is."""
        self.fill()
        lease = self.get(self.leases.try_hold(LEASE))
        assert lease is not None
        self.check()
        self.assertEqual((len(self.left()), self.runs), (11, []))
        self.get(lease.release())
        self.check()
        self.assertEqual(len(self.left()), 8)

    def test_a_lost_lease_stops_the_run(self) -> None:
        """After the batch in which the lease was lost nothing more is removed."""
        self.patch(evict, "BATCH", 1)
        self.fill()
        self.meddled.meddle.append(lambda: setattr(self.leases.held[LEASE], "lost", True))
        self.check()
        self.assertEqual(len(self.left()), 10)
        self.assertEqual(self.leases.held, {})

    def test_a_store_that_is_away_stops_the_run(self) -> None:
        """Rows go before bytes: nothing that is recorded is missing, and nothing more is marked."""
        self.patch(evict, "BATCH", 2)
        self.fill()
        self.store.failing = Unavailable("away")
        self.check()
        rows = [number for number in range(11) if self.catalog.records[key_of(number)].is_stored]
        self.assertEqual(rows, list(range(9)))
        self.assertTrue(all(key_of(number) in self.store.objects for number in rows))
        self.assertEqual(len(self.runs), 1)

    def test_a_database_that_is_away_removes_nothing(self) -> None:
        """Without the catalog nothing is removed, and no error comes out."""
        self.fill()
        self.catalog.failing = Unavailable("away")
        self.check()
        self.catalog.failing = None
        self.assertEqual(len(self.left()), 11)
        self.catalog.failing_writes = Unavailable("away")
        self.check()
        self.catalog.failing_writes = None
        self.assertEqual(len(self.left()), 11)

    def test_leases_that_are_away_remove_nothing(self) -> None:
        """Where nobody can tell who is at work, nothing is removed."""
        self.fill()
        self.leases.failing = Unavailable("away")
        self.check()
        self.assertEqual(len(self.left()), 11)

    def test_bytes_being_removed_are_not_taken_over(self) -> None:
        """Bytes that are being removed are not taken over meanwhile."""
        self.keep(1)
        self.get(self.catalog.mark_missing(key_of(1)))
        lease = self.get(self.leases.try_hold(lease_of(key_of(1))))
        assert lease is not None
        self.assertIsNone(self.get(self.adoption.adopt(key_of(1), self.catalog.records[key_of(1)])))
        self.get(lease.release())
        self.assertEqual(self.store.quarantined, [])


class TriggerTests(EvictionCase):
    """What makes a run begin."""

    def stores(self, *numbers: int, ago_s: float | None = None) -> None:
        for number in numbers:
            self.keep(number, ago_s=ago_s)
            self.eviction.stored()

    def test_the_write_that_passes_the_limit_makes_room(self) -> None:
        """Every write is followed by a look at the size, and the eleventh NAR by a run."""
        self.stores(*range(10))
        self.assertEqual(self.runs, [])
        self.stores(10)
        self.assertEqual(len(self.runs), 1)
        self.assertEqual(len(self.left()), 8)

    def test_writes_during_a_run_are_looked_at_once_after_it(self) -> None:
        """However many come meanwhile, one more look follows, and one run at a time."""
        self.stores(*range(10))

        def more() -> None:
            for number in range(20, 25):
                self.keep(number, ago_s=0)
                self.eviction.stored()

        self.meddled.meddle.append(more)
        self.stores(10)
        self.assertEqual(len(self.left()), 8)
        self.assertEqual([run.nars for run in self.runs], [8])

    def test_runs_that_achieve_nothing_are_not_repeated_at_once(self) -> None:
        """While all is in use, writes do not make the database be searched again and again."""
        self.stores(*range(11), ago_s=0)
        self.assertEqual(len(self.runs), 1)
        self.stores(*range(11, 15), ago_s=0)
        self.assertEqual(len(self.runs), 1)
        self.clock.advance(evict.REST_S)
        self.assertEqual(len(self.runs), 2)
        self.clock.advance(evict.REST_S)
        self.assertEqual(len(self.runs), 2)

    def test_a_look_during_a_run_is_none(self) -> None:
        """A tick that comes in the middle of a run does not begin another."""
        self.stores(*range(10))
        self.meddled.meddle.append(lambda: self.get(self.eviction.check()))
        self.stores(10)
        self.assertEqual(len(self.runs), 1)

    def test_stopping_in_the_middle_leaves_no_row_without_bytes(self) -> None:
        """Cancelled while an object goes, nothing is recorded that is not there."""
        self.stores(*range(10))

        async def hanging(key: NarKey) -> bool:
            await Deferred()
            raise AssertionError("unreachable")

        self.patch(self.store, "delete", hanging)
        self.stores(10)
        self.assertIn(LEASE, self.leases.held)
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        rows = {key for key, record in self.catalog.records.items() if record.is_stored}
        self.assertEqual(rows, {key_of(number) for number in range(8)})
        self.assertLessEqual(rows, set(self.store.objects))
        self.assertEqual(self.leases.held, {})
