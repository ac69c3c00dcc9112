"""The quarantine: which wrong files it keeps, which it discards, and the cost of looking."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.clocks import utc_now
from ncps.aio.tasks import Tasks
from ncps.cache.nar.quarantine import (
    BATCH,
    LEASE,
    REST_S,
    TROUBLE_S,
    Quarantine,
    QuarantineBounds,
)
from ncps.errors import NcpsError, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.ports import Lease, SetAside
from tests.contract.samples import key_of, spooled
from tests.fakes.clocks import SetClock
from tests.fakes.leases import MemoryLease, MemoryLeases
from tests.fakes.metrics import counted, series
from tests.fakes.stores import MemoryNarStore
from tests.fakes.world import alone, fake_world

T = TypeVar("T")
HOUR = 3600.0
NOW = datetime(2026, 6, 10, tzinfo=UTC)
ANY = QuarantineBounds(count=1000, size=10**9, age_s=HOUR)


class QuarantineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SetClock()
        self.clock.ahead = NOW.timestamp()
        self.tasks = Tasks(self.clock)
        self.store = MemoryNarStore()
        self.store.now = lambda: utc_now(self.clock)
        self.leases = MemoryLeases()
        self.metrics = Metrics()
        self.shown: list[tuple[int, int]] = []
        self.patch(self.metrics, "set_quarantine", lambda *look: self.shown.append(look))
        self.use()

    def use(self, **changes: Any) -> Quarantine:
        """Make the quarantine again, with other bounds."""
        plain: dict[str, Any] = {"count": 3, "size": 1000, "age_s": HOUR}
        self.quarantine = Quarantine(
            fake_world(
                self.clock,
                self.tasks,
                nars=self.store,
                cluster=alone(self.leases),
                metrics=self.metrics,
            ),
            QuarantineBounds(**(plain | changes)),
        )
        return self.quarantine

    @property
    def set_aside(self) -> float:
        """Number of files that were set aside."""
        return counted(self.metrics.quarantine_set_aside)

    @property
    def discarded(self) -> dict[str, float]:
        """Number of files that were discarded or never set aside, by the bound."""
        return series(self.metrics.quarantine_discarded)

    def tearDown(self) -> None:
        stopping = Deferred.fromCoroutine(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.assertEqual({}, self.leases.held)
        self.assertEqual([], self.clock.getDelayedCalls())

    def get(self, coro: Coroutine[Deferred[Any], Any, T]) -> T:
        value: T = self.successResultOf(Deferred.fromCoroutine(coro))
        return value

    def put(self, number: int, data: bytes = b"wrong") -> bool:
        """Let a stored file be found wrong."""
        self.store.put(key_of(number), data)
        return self.get(self.quarantine.put(key_of(number)))

    def there(self, number: int, data: bytes = b"wrong", ago_s: float = 0.0) -> SetAside:
        """Let a file be there from before."""
        return self.store.put_aside(key_of(number), data, NOW - timedelta(seconds=ago_s))

    def look(self) -> None:
        """Let the ticker take a look."""
        self.clock.advance(TROUBLE_S)
        self.get(self.quarantine.check())

    def left(self) -> set[NarKey]:
        return {key for key, _ in self.store.quarantined}

    def held(self) -> Lease:
        """The lease, taken by another process."""
        lease = self.get(MemoryLeases("there", beside=self.leases).try_hold(LEASE))
        assert lease is not None
        return lease


class PutTests(QuarantineCase):
    """A file that is found wrong is set aside, or deleted."""

    def test_a_wrong_file_is_set_aside_and_counted(self) -> None:
        """The file is there for the operator, and the gauges show it immediately."""
        self.assertTrue(self.put(1))
        self.assertEqual([(key_of(1), b"wrong")], self.store.quarantined)
        self.assertEqual((1, {}, [(1, 5)]), (self.set_aside, self.discarded, self.shown))

    def test_nothing_there_is_no_error(self) -> None:
        """Another process may have removed it at any moment."""

        async def gone(_: NarKey) -> bool:
            return False

        self.assertFalse(self.get(self.quarantine.put(key_of(1))))
        with self.subTest("between looking and moving"):
            self.patch(self.store, "quarantine", gone)
            self.assertFalse(self.put(1))
        with self.subTest("between looking and deleting"):
            self.patch(self.store, "delete", gone)
            self.use(count=0)
            self.assertFalse(self.put(1))
        self.assertEqual((0, {}, []), (self.set_aside, self.discarded, self.shown))

    def test_without_room_for_any_file_it_is_deleted(self) -> None:
        """One log line names the setting that refused it."""
        for bound in ("count", "size", "age"):
            self.use(**{"age_s" if bound == "age" else bound: 0})
            with capturedLogs() as lines:
                self.assertTrue(self.put(1))
            self.assertEqual({}, self.store.objects)
            self.assertEqual([f"cache-quarantine-max-{bound}"], [e["reason"] for e in lines])
            self.assertEqual(1, self.discarded[bound])
        everything = {"count": 1, "size": 1, "age": 1}
        self.assertEqual((set(), everything), (self.left(), self.discarded))
        self.assertEqual(0, self.set_aside)

    def test_a_file_that_is_larger_than_the_bound_is_deleted(self) -> None:
        """Files that were set aside before stay."""
        self.use(size=10)
        self.put(1, b"x" * 10)
        self.put(2, b"x" * 11)
        self.assertEqual(({key_of(1)}, {"size": 1}), (self.left(), self.discarded))
        self.assertEqual({}, self.store.objects)

    def test_without_room_on_the_disk_it_is_deleted(self) -> None:
        """A full bucket cannot copy; nevertheless the wrong file must not stay under its name."""

        async def full(_: NarKey) -> bool:
            raise StorageFull("no room")

        self.patch(self.store, "quarantine", full)
        self.assertTrue(self.put(1))
        self.assertEqual(
            ({}, set(), {"room": 1}), (self.store.objects, self.left(), self.discarded)
        )

    def test_a_file_that_cannot_be_moved_or_deleted_is_an_error(self) -> None:
        """On a read-only disk the file stays, and nothing is counted."""

        async def read_only(_: NarKey) -> bool:
            raise StorageFull("read-only")

        self.patch(self.store, "quarantine", read_only)
        self.patch(self.store, "delete", read_only)
        self.store.put(key_of(1), b"wrong")
        putting = Deferred.fromCoroutine(self.quarantine.put(key_of(1)))
        self.failureResultOf(putting, StorageFull)
        self.assertEqual((0, {}), (self.set_aside, self.discarded))

    def test_a_store_that_is_away_deletes_nothing(self) -> None:
        """The store may only be slow: the bytes may be set aside next time."""

        async def away(_: NarKey) -> bool:
            raise Unavailable("away")

        self.patch(self.store, "quarantine", away)
        self.store.put(key_of(1), b"wrong")
        putting = Deferred.fromCoroutine(self.quarantine.put(key_of(1)))
        self.failureResultOf(putting, Unavailable)
        self.assertIn(key_of(1), self.store.objects)


class ReplacedTests(QuarantineCase):
    """Files that the store sets aside, because other bytes are published under their keys."""

    def publish(self, number: int, data: bytes) -> None:
        sources = Path(self.mktemp())
        self.get(self.store.publish(key_of(number), spooled(sources, data)))

    def test_it_is_counted_and_bounded_like_any_other(self) -> None:
        """The bounds apply to them, too, even if they keep nothing."""
        for number in range(5):
            self.store.put(key_of(number), b"wrong")
            self.publish(number, b"right")
        self.clock.advance(REST_S)
        self.assertEqual((5, 3, {"count": 2}), (self.set_aside, len(self.left()), self.discarded))
        self.use(count=0)
        self.store.put(key_of(9), b"wrong")
        self.publish(9, b"right")
        self.clock.advance(REST_S)
        self.assertEqual((set(), {b"right"}), (self.left(), set(self.store.objects.values())))


class LookTests(QuarantineCase):
    """A look discards the files beyond the bounds: one process at a time, and not too often."""

    def test_the_oldest_make_room(self) -> None:
        """This happens when one more is set aside; a log line and the gauges show it."""
        for number in (1, 2, 3):
            self.there(number, ago_s=100.0 * number)
        with capturedLogs() as lines:
            self.put(4)
        self.assertEqual({key_of(1), key_of(2), key_of(4)}, self.left())
        self.assertEqual(({"count": 1}, [(3, 15)]), (self.discarded, self.shown))
        (line,) = lines
        self.assertEqual((1, 5), (line["files"], line["freed"]))

    def test_age_is_looked_after_though_nothing_is_set_aside(self) -> None:
        """The ticker checks the age of the files."""
        self.there(1)
        self.look()
        self.assertEqual([(1, 5)], self.shown)
        self.clock.advance(HOUR)
        self.look()
        self.assertEqual((set(), {"age": 1}, (0, 0)), (self.left(), self.discarded, self.shown[-1]))

    def test_a_clock_that_is_set_makes_nothing_old(self) -> None:
        """Setting the time of day makes no file older."""
        self.there(1)
        for step in (HOUR, -HOUR, 48 * HOUR, -24 * HOUR):
            self.clock.ahead += step
            self.look()
            self.assertEqual({key_of(1)}, self.left())
        self.clock.advance(HOUR)
        self.look()
        self.assertEqual(set(), self.left())

    def test_nothing_to_do_is_said_nowhere(self) -> None:
        """A look without anything to do writes no log line."""
        self.there(1)
        with capturedLogs() as lines:
            self.look()
        self.assertEqual([], lines)

    def test_many_bad_files_cost_few_looks(self) -> None:
        """A thousand files in a row cause a look or two a second; then the bounds are kept."""
        walks = 0
        walk = self.store.walk_quarantine

        def counted() -> Any:
            nonlocal walks
            walks += 1
            return walk()

        self.patch(self.store, "walk_quarantine", counted)
        for number in range(1000):
            self.put(number)
            self.clock.advance(0.005)
        self.clock.advance(REST_S)
        self.assertLess(walks, 10)
        self.assertEqual((3, {"count": 997}), (len(self.left()), self.discarded))
        self.assertEqual((3, 15), self.shown[-1])

    def test_what_was_set_aside_while_somebody_looks_is_looked_at_after(self) -> None:
        """The next look begins after this one, and finds that file."""
        gate: Deferred[None] = Deferred()
        discard = self.store.discard
        discarding: list[SetAside] = []

        async def slowly(victim: SetAside) -> None:
            discarding.append(victim)
            await gate
            await discard(victim)

        self.patch(self.store, "discard", slowly)
        for number in range(6):
            self.put(number)
        self.clock.advance(REST_S)
        self.put(6)
        self.assertEqual(1, len(discarding))
        gate.callback(None)
        self.clock.advance(REST_S)
        self.assertEqual(3, len(self.left()))

    def test_a_quarantine_from_before_there_were_bounds(self) -> None:
        """A look holds a bounded number of files in memory."""
        self.use(count=10, size=10**9)
        for number in range(2 * BATCH + 50):
            self.there(number, ago_s=number)
        self.look()
        self.assertEqual({key_of(number) for number in range(10)}, self.left())
        self.assertEqual((10, 50), self.shown[-1])

    def test_one_process_at_a_time_discards(self) -> None:
        """Another process counts, and looks again while there are too many files."""
        for number in range(5):
            self.there(number, ago_s=number)
        lease = self.held()
        self.look()
        self.assertEqual((5, [(5, 25)]), (len(self.left()), self.shown))
        self.clock.advance(REST_S)
        self.assertEqual([(5, 25)] * 2, self.shown)
        self.get(lease.release())
        self.clock.advance(REST_S)
        self.assertEqual((3, (3, 15)), (len(self.left()), self.shown[-1]))

    def test_another_process_within_the_bounds_is_left_alone(self) -> None:
        """A process that only counts looks no more often than the ticker."""
        self.there(1)
        lease = self.held()
        self.look()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.get(lease.release())

    def test_a_lost_lease_ends_it(self) -> None:
        """Another process may have begun with the same files."""
        for number in range(9):
            self.there(number, ago_s=number)
        discard = self.store.discard

        async def lose(victim: SetAside) -> None:
            await discard(victim)
            lease = self.leases.held[LEASE]
            assert isinstance(lease, MemoryLease)
            lease.lost = True

        self.patch(self.store, "discard", lose)
        with capturedLogs() as lines:
            self.look()
        self.assertEqual(8, len(self.left()))
        self.assertEqual(2, len(lines))

    def test_a_file_that_cannot_be_discarded_keeps_no_other(self) -> None:
        """The file is counted as there, and each look tries it again."""
        stuck = [self.there(number, ago_s=HOUR + number) for number in (7, 8)]
        self.store.undiscardable = {each.mark for each in stuck}
        for number in range(5):
            self.there(number, ago_s=number)
        with capturedLogs() as lines:
            self.look()
        self.assertEqual({key_of(n) for n in (0, 1, 2, 7, 8)}, self.left())
        self.assertEqual([(5, 25)], self.shown)
        self.assertEqual(2, lines[-1]["stuck"])
        self.store.undiscardable = set()
        self.look()
        self.assertEqual((3, 15), self.shown[-1])

    def test_what_is_away_is_looked_for_later(self) -> None:
        """While store or leases are away, each look writes only one log line."""
        self.use(count=1)
        faults: list[tuple[Any, NcpsError]] = [
            (self.store, Unavailable("no store")),
            (self.leases, Unavailable("no leases")),
        ]
        self.there(1, ago_s=10)
        self.there(2)
        for what, error in faults:
            what.failing = error
            with capturedLogs() as lines:
                self.look()
                for _ in range(10):
                    self.get(self.quarantine.check())
                    self.clock.advance(REST_S)
            self.assertEqual([str(error)], [line["reason"] for line in lines])
            what.failing = None
        self.clock.advance(TROUBLE_S)
        self.assertEqual({key_of(2)}, self.left())
