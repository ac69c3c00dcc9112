"""When an eviction runs, and evictions that fail."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.cache.cluster import lease_of
from ncps.cache.upkeep import evict
from ncps.cache.upkeep.evict import LEASE
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from tests.contract.samples import key_of
from tests.unit.cache.upkeep.rig import SIZE, EvictionCase


class TroubleTests(EvictionCase):
    """Two runs at the same time, lost leases, and parts that are away."""

    def fill(self) -> None:
        for number in range(11):
            self.keep(number)

    def test_another_process_is_at_it(self) -> None:
        """Nothing happens while another process has the lease; it does later."""
        self.fill()
        lease = self.get(self.leases.try_hold(LEASE))
        assert lease is not None
        self.check()
        self.assertEqual((len(self.left()), self.runs), (11, 0))
        self.get(lease.release())
        self.check()
        self.assertEqual(len(self.left()), 8)

    def test_a_lost_lease_stops_the_run(self) -> None:
        """After the batch in which the lease was lost, nothing more is removed."""
        self.patch(evict, "BATCH", 1)
        self.fill()
        self.meddled.meddle.append(lambda: setattr(self.leases.held[LEASE], "lost", True))
        self.check()
        self.assertEqual(len(self.left()), 10)
        self.assertEqual(self.leases.held, {})

    def test_a_store_that_is_away_stops_the_run(self) -> None:
        """Rows change before bytes are removed: no row lacks bytes, and no more are marked."""
        self.patch(evict, "BATCH", 2)
        self.fill()
        self.store.failing = Unavailable("away")
        self.check()
        rows = [number for number in range(11) if self.catalog.records[key_of(number)].is_stored]
        self.assertEqual(rows, list(range(9)))
        self.assertTrue(all(key_of(number) in self.store.objects for number in rows))
        self.assertEqual(self.runs, 1)

    def test_a_database_that_is_away_removes_nothing(self) -> None:
        """Without the catalog nothing is removed, and no error is raised."""
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
        """Nothing is removed while the backend cannot tell which leases are held."""
        self.fill()
        self.leases.failing = Unavailable("away")
        self.check()
        self.assertEqual(len(self.left()), 11)

    def test_bytes_being_removed_are_not_taken_over(self) -> None:
        """Bytes that are being removed are not adopted."""
        self.keep(1)
        self.get(self.catalog.mark_missing(key_of(1)))
        lease = self.get(self.leases.try_hold(lease_of(key_of(1))))
        assert lease is not None
        self.assertIsNone(self.get(self.adoption.adopt(key_of(1), self.catalog.records[key_of(1)])))
        self.get(lease.release())
        self.assertEqual(self.store.quarantined, [])


class TriggerTests(EvictionCase):
    """The events that make a run begin."""

    def stores(self, *numbers: int, ago_s: float | None = None) -> None:
        for number in numbers:
            self.keep(number, ago_s=ago_s)
            self.eviction.stored()

    def test_the_write_that_passes_the_limit_makes_room(self) -> None:
        """Each write is followed by a look at the size, and the eleventh NAR by a run."""
        self.stores(*range(10))
        self.assertEqual(self.runs, 0)
        self.stores(10)
        self.assertEqual(self.runs, 1)
        self.assertEqual(len(self.left()), 8)

    def test_writes_during_a_run_are_looked_at_once_after_it(self) -> None:
        """After many writes during a run, one more look follows, and one run at a time."""
        self.stores(*range(10))

        def more() -> None:
            for number in range(20, 25):
                self.keep(number, ago_s=0)
                self.eviction.stored()

        self.meddled.meddle.append(more)
        self.stores(10)
        self.assertEqual(len(self.left()), 8)
        self.assertRemoved(nars=8, freed=8 * SIZE)

    def test_runs_that_achieve_nothing_are_not_repeated_at_once(self) -> None:
        """While all NARs are in use, writes do not cause repeated searches in the database."""
        self.stores(*range(11), ago_s=0)
        self.assertEqual(self.runs, 1)
        self.stores(*range(11, 15), ago_s=0)
        self.assertEqual(self.runs, 1)
        self.clock.advance(evict.REST_S)
        self.assertEqual(self.runs, 2)
        self.clock.advance(evict.REST_S)
        self.assertEqual(self.runs, 2)

    def test_a_look_during_a_run_is_none(self) -> None:
        """A tick that comes in the middle of a run does not begin another."""
        self.stores(*range(10))
        self.meddled.meddle.append(lambda: self.get(self.eviction.check()))
        self.stores(10)
        self.assertEqual(self.runs, 1)

    def test_stopping_in_the_middle_leaves_no_row_without_bytes(self) -> None:
        """If a run is cancelled while it removes an object, each row has its bytes."""
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
