"""The sweep: objects without a record, and records that were unused for a long time."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.clocks import utc_now
from ncps.aio.tasks import Tasks
from ncps.cache.cluster import lease_of
from ncps.cache.narinfo.state import LastUse
from ncps.cache.upkeep import orphans
from ncps.cache.upkeep.evict import LEASE
from ncps.cache.upkeep.orphans import PACE, PAUSE_S, Orphans
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.ports import Lease
from tests.contract.samples import digest_of, entry, key_of, record, stored
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.clocks import SetClock
from tests.fakes.leases import MemoryLeases
from tests.fakes.metrics import counted
from tests.fakes.stores import MemoryNarStore
from tests.fakes.world import alone, fake_world

DAY = 86400.0


class Changes:
    """The part of the narinfos that the sweep needs."""

    def __init__(self) -> None:
        self.keys: list[NarKey] = []

    def changed(self, key: NarKey) -> None:
        self.keys.append(key)


class OrphanTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock: Clock = Clock()
        self.clock.rightNow = datetime(2026, 6, 10, tzinfo=UTC).timestamp()
        self.catalog = MemoryCatalog()
        self.catalog.made_at = self.ago(100 * DAY)
        self.store = MemoryNarStore()
        self.leases = MemoryLeases()
        self.changes = Changes()
        self.metrics = Metrics()

    def ago(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds() - seconds, UTC)

    def put(self, key: NarKey, days: float) -> None:
        self.store.put(key, b"x" * 10)
        self.store._modified[key] = self.ago(days * DAY)

    def made(self, grace_s: float = DAY) -> Orphans:
        return Orphans(
            fake_world(
                self.clock,
                Tasks(self.clock),
                catalog=self.catalog,
                nars=self.store,
                cluster=alone(self.leases),
                metrics=self.metrics,
            ),
            self.changes,  # type: ignore[arg-type]  # of which it needs no more
            LastUse(self.clock, self.catalog),
            grace_s=grace_s,
        )

    def sweep(self, grace_s: float = DAY) -> Deferred[None]:
        return Deferred.fromCoroutine(self.made(grace_s).sweep())

    def left(self) -> set[NarKey]:
        self.successResultOf(self.sweep())
        self.assertEqual(self.leases.held, {})
        return set(self.store.objects)

    def held(self, name: str) -> Lease:
        """Take a lease for another process."""
        lease = self.successResultOf(Deferred.fromCoroutine(self.leases.try_hold(name)))
        assert lease is not None
        return lease

    def run_now(self, coro: object) -> None:
        self.successResultOf(Deferred.fromCoroutine(coro))  # type: ignore[arg-type]

    def test_old_objects_that_no_record_knows_go(self) -> None:
        """Known objects stay; an object whose row says "not stored" is unknown, too."""
        for number in (1, 2, 3):
            self.put(key_of(number), 2)
        self.run_now(self.catalog.mark_stored(stored(1)))
        self.run_now(self.catalog.add_narinfo(entry(2, fetched_at=self.ago(1)), record(2)))
        with capturedLogs() as lines:
            self.assertEqual(self.left(), {key_of(1)})
        (line,) = lines
        self.assertEqual((2, 20, 0), (line["objects"], line["freed"], line["records"]))
        found = counted(self.metrics.orphans), counted(self.metrics.orphans_freed)
        self.assertEqual((2, 20), found)

    def test_young_objects_stay(self) -> None:
        """An object that was just published may get its row soon."""
        self.put(key_of(1), 0.9)
        self.put(key_of(2), 1.1)
        self.assertEqual(self.left(), {key_of(1)})

    def test_objects_older_than_the_catalog_stay(self) -> None:
        """An object that is older than the catalog comes from elsewhere, and stays."""
        self.put(key_of(1), 100.1)
        self.put(key_of(2), 99.9)
        self.assertEqual(self.left(), {key_of(1)})

    def test_objects_of_a_nar_of_another_name_stay(self) -> None:
        """The compressed object of an uncompressed NAR belongs to the row of that NAR."""
        name = key_of(1).name
        plain = stored(1, key=NarKey(name, ""), compression="none", encoding="zstd")
        self.run_now(self.catalog.mark_stored(plain))
        self.put(NarKey(name, "zst"), 2)
        self.put(NarKey(name, "xz"), 2)
        self.assertEqual(self.left(), {NarKey(name, "zst")})

    def test_a_clock_that_is_set_makes_no_object_old(self) -> None:
        """An object that was stored a minute ago stays young, even if the clock is set."""
        clock = SetClock()
        self.clock = clock
        self.catalog.made_at = datetime.fromtimestamp(clock.wall() - 100 * DAY, UTC)
        sweeper = self.made()
        self.store.put(key_of(1), b"young")
        self.store._modified[key_of(1)] = utc_now(clock)
        clock.advance(60)
        for step in (3600.0, -3600.0, 2 * DAY, -DAY, DAY):
            clock.ahead += step
            self.successResultOf(Deferred.fromCoroutine(sweeper.sweep()))
            self.assertEqual(set(self.store.objects), {key_of(1)})
        clock.advance(4 * DAY)
        self.successResultOf(Deferred.fromCoroutine(sweeper.sweep()))
        self.assertEqual(set(self.store.objects), set())

    def test_no_grace_is_no_sweep(self) -> None:
        """The setting 0 removes nothing."""
        self.put(key_of(1), 50)
        self.successResultOf(self.sweep(grace_s=0))
        self.assertEqual(set(self.store.objects), {key_of(1)})

    def test_objects_in_use_stay(self) -> None:
        """An object that another process fetches or adopts is left alone."""
        self.put(key_of(1), 2)
        lease = self.held(lease_of(key_of(1)))
        self.successResultOf(self.sweep())
        self.assertEqual(set(self.store.objects), {key_of(1)})
        self.run_now(lease.release())

    def test_an_eviction_elsewhere_is_waited_for(self) -> None:
        """One process removes at a time; an object that was adopted since then stays."""
        self.put(key_of(1), 2)
        lease = self.held(LEASE)
        sweep = self.sweep()
        self.assertNoResult(sweep)
        self.run_now(self.catalog.mark_stored(stored(1)))
        self.run_now(lease.release())
        self.successResultOf(sweep)
        self.assertEqual(set(self.store.objects), {key_of(1)})

    def test_unsure_answer_removes_nothing(self) -> None:
        """Without the catalog, the store or the leases nothing is removed, without an error."""
        self.put(key_of(1), 2)
        for part in (self.catalog, self.store, self.leases):
            part.failing = Unavailable("away")
            self.successResultOf(self.sweep())
            part.failing = None
            self.assertEqual(set(self.store.objects), {key_of(1)})
        self.assertEqual(self.left(), set())

    def test_the_sweep_is_slow(self) -> None:
        """It pauses after every hundred objects."""
        for number in range(2 * PACE + 1):
            self.put(key_of(number), 0.1)
        sweep = self.sweep()
        for _ in range(2):
            self.assertNoResult(sweep)
            self.clock.advance(PAUSE_S)
        self.successResultOf(sweep)

    def test_records_unwanted_for_a_month_go(self) -> None:
        """Only rows of NARs that are not stored are removed, in batches; memory drops them."""
        self.patch(orphans, "FORGET_BATCH", 2)
        count = 301
        for number in range(count):
            fetched = entry(number, fetched_at=self.ago(32 * DAY))
            self.run_now(self.catalog.add_narinfo(fetched, record(number)))
        self.run_now(
            self.catalog.add_narinfo(entry(900, fetched_at=self.ago(29 * DAY)), record(900))
        )
        self.run_now(self.catalog.add_narinfo(entry(901), record(901)))
        self.run_now(self.catalog.mark_stored(stored(901)))
        with capturedLogs() as lines:
            sweep = self.sweep()
            for _ in range(150):
                self.assertNoResult(sweep)
                self.clock.advance(PAUSE_S)
            self.successResultOf(sweep)
        self.assertEqual(set(self.catalog.entries), {digest_of(900), digest_of(901)})
        self.assertEqual(set(self.changes.keys), {key_of(number) for number in range(count)})
        self.assertEqual([count], [line["records"] for line in lines])

    def test_a_count_that_was_off_is_told(self) -> None:
        """A difference is one log line; a database that is away is no error."""
        with capturedLogs() as events:
            self.run_now(self.made().recount())
            self.assertEqual(events, [])
            self.catalog.off = -7
            self.run_now(self.made().recount())
            self.assertEqual([event["off"] for event in events], [-7])
            self.catalog.failing = Unavailable("away")
            self.run_now(self.made().recount())
            self.assertEqual(len(events), 2)
