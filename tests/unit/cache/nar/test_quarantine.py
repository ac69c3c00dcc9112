"""The quarantine: what is kept of wrong files, what goes, and what that costs."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.clocks import utc_now
from ncps.aio.tasks import Tasks
from ncps.cache.cluster import Cluster
from ncps.cache.nar.quarantine import (
    BATCH,
    LEASE,
    REST_S,
    TROUBLE_S,
    Quarantine,
    QuarantineBounds,
    excess,
)
from ncps.cache.world import Events
from ncps.errors import NcpsError, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Lease, SetAside
from tests.contract.samples import key_of, spooled
from tests.fakes.clocks import SetClock
from tests.fakes.leases import MemoryLease, MemoryLeases
from tests.fakes.stores import MemoryNarStore
from tests.fakes.world import fake_world

T = TypeVar("T")

HOUR = 3600.0
NOW = datetime(2026, 6, 10, tzinfo=UTC)
ANY = QuarantineBounds(count=1000, size=10**9, age_s=HOUR)


def aside(number: int, size: int = 10, ago_s: float = 0.0) -> SetAside:
    return SetAside(
        key=key_of(number),
        mark=f"{number}",
        size=size,
        since=NOW - timedelta(seconds=ago_s),
    )


def going(
    *found: SetAside, count: int = 1000, size: int = 10**9, age_s: float = HOUR
) -> list[tuple[str, str]]:
    """Marks of what goes, each with its bound."""
    bounds = QuarantineBounds(count=count, size=size, age_s=age_s)
    before = NOW - timedelta(seconds=age_s)
    return [(each.mark, bound) for each, bound in excess(found, bounds, before)]


class ExcessTests(SynchronousTestCase):
    """Which files must go."""

    def test_nothing_goes_that_is_within_the_bounds(self) -> None:
        """Each bound is met exactly: so many files, so many bytes, just younger than that."""
        found = [aside(1, 5, ago_s=HOUR - 1), aside(2, 5)]
        self.assertEqual(going(*found, count=2, size=10), [])
        self.assertEqual(going(count=0, size=0, age_s=0), [])

    def test_the_oldest_go_first_for_the_count(self) -> None:
        """However they are found."""
        found = [aside(2, ago_s=20), aside(4, ago_s=40), aside(1, ago_s=10), aside(3, ago_s=30)]
        self.assertEqual(going(*found, count=2), [("4", "count"), ("3", "count")])

    def test_the_oldest_go_first_for_the_size(self) -> None:
        """Also a small one that would fit, once an older one than the last that fits."""
        found = [aside(1, 6, ago_s=10), aside(2, 6, ago_s=20), aside(3, 1, ago_s=30)]
        self.assertEqual(going(*found, size=10), [("3", "size"), ("2", "size")])

    def test_what_is_too_old_goes(self) -> None:
        """From the very age on."""
        found = [aside(1, ago_s=HOUR - 1), aside(2, ago_s=HOUR), aside(3, ago_s=9 * HOUR)]
        self.assertEqual(going(*found), [("3", "age"), ("2", "age")])

    def test_one_that_is_too_large_alone_drives_out_no_other(self) -> None:
        """It goes itself."""
        found = [aside(1, 11), aside(2, 5, ago_s=10), aside(3, 5, ago_s=20)]
        self.assertEqual(going(*found, size=10), [("1", "size")])

    def test_nought_of_anything_keeps_nothing(self) -> None:
        """Not even an empty file."""
        found = [aside(1, 0), aside(2, 5)]
        for name in ("count", "size", "age"):
            bounds: dict[str, Any] = {"age_s" if name == "age" else name: 0}
            self.assertEqual(going(*found, **bounds), [("1", name), ("2", name)])

    @given(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2 * int(HOUR))), max_size=30),
        st.integers(0, 10),
        st.integers(0, 100),
    )
    def test_what_stays_is_within_the_bounds(
        self, found: list[tuple[int, int]], count: int, size: int
    ) -> None:
        """And nothing goes that is younger than what stays, but for one that is too large."""
        files = [aside(n, size, ago_s) for n, (size, ago_s) in enumerate(found)]
        gone = {mark for mark, _ in going(*files, count=count, size=size)}
        stay = [each for each in files if each.mark not in gone]
        self.assertLessEqual(len(stay), count)
        self.assertLessEqual(sum(each.size for each in stay), size)
        self.assertTrue(all(NOW - each.since < timedelta(seconds=HOUR) for each in stay))
        fitting = [each for each in files if each.mark in gone and each.size <= size]
        for each in stay:
            self.assertTrue(all(other.since <= each.since for other in fitting))


class QuarantineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SetClock()
        self.clock.ahead = NOW.timestamp()
        self.tasks = Tasks(self.clock)
        self.store = MemoryNarStore()
        self.store.now = lambda: utc_now(self.clock)
        self.leases = MemoryLeases()
        self.set_aside = 0
        self.discarded: list[str] = []
        self.shown: list[tuple[int, int]] = []
        self.use()

    def use(self, **changes: Any) -> Quarantine:
        """Make it anew, with other bounds."""
        plain: dict[str, Any] = {"count": 3, "size": 1000, "age_s": HOUR}
        self.quarantine = Quarantine(
            fake_world(
                self.clock,
                self.tasks,
                nars=self.store,
                cluster=Cluster(leases=self.leases),
                events=Events(
                    set_aside=self._was_set_aside,
                    discarded=self.discarded.append,
                    quarantined=lambda files, size: self.shown.append((files, size)),
                ),
            ),
            QuarantineBounds(**(plain | changes)),
        )
        return self.quarantine

    def _was_set_aside(self) -> None:
        self.set_aside += 1

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
        """Find a stored file wrong."""
        self.store.put(key_of(number), data)
        return self.get(self.quarantine.put(key_of(number)))

    def there(self, number: int, data: bytes = b"wrong", ago_s: float = 0.0) -> SetAside:
        """Have a file there from before."""
        return self.store.put_aside(key_of(number), data, NOW - timedelta(seconds=ago_s))

    def look(self) -> None:
        """Have the ticker's look taken."""
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
    """What becomes of a file that is found wrong."""

    def test_a_wrong_file_is_set_aside_and_counted(self) -> None:
        """It is there for the operator, and the gauges say so at once."""
        self.assertTrue(self.put(1))
        self.assertEqual([(key_of(1), b"wrong")], self.store.quarantined)
        self.assertEqual((1, [], [(1, 5)]), (self.set_aside, self.discarded, self.shown))

    def test_nothing_there_is_no_error(self) -> None:
        """Somebody was quicker, at any moment."""

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
        self.assertEqual((0, [], []), (self.set_aside, self.discarded, self.shown))

    def test_without_room_for_any_file_it_is_deleted(self) -> None:
        """One line says which setting that was for."""
        for bound in ("count", "size", "age"):
            self.use(**{"age_s" if bound == "age" else bound: 0})
            with capturedLogs() as lines:
                self.assertTrue(self.put(1))
            self.assertEqual({}, self.store.objects)
            self.assertEqual([f"cache-quarantine-max-{bound}"], [e["reason"] for e in lines])
        self.assertEqual((set(), ["count", "size", "age"]), (self.left(), self.discarded))
        self.assertEqual(0, self.set_aside)

    def test_a_file_that_is_larger_than_the_bound_is_deleted(self) -> None:
        """What was set aside before stays."""
        self.use(size=10)
        self.put(1, b"x" * 10)
        self.put(2, b"x" * 11)
        self.assertEqual(({key_of(1)}, ["size"]), (self.left(), self.discarded))
        self.assertEqual({}, self.store.objects)

    def test_without_room_on_the_disk_it_is_deleted(self) -> None:
        """A full bucket cannot copy; what is wrong shall not stay under its name for that."""

        async def full(_: NarKey) -> bool:
            raise StorageFull("no room")

        self.patch(self.store, "quarantine", full)
        self.assertTrue(self.put(1))
        self.assertEqual(({}, set(), ["room"]), (self.store.objects, self.left(), self.discarded))

    def test_what_can_neither_be_moved_nor_deleted_is_an_error(self) -> None:
        """On a read-only disk it stays, and nothing is counted."""

        async def read_only(_: NarKey) -> bool:
            raise StorageFull("read-only")

        self.patch(self.store, "quarantine", read_only)
        self.patch(self.store, "delete", read_only)
        self.store.put(key_of(1), b"wrong")
        putting = Deferred.fromCoroutine(self.quarantine.put(key_of(1)))
        self.failureResultOf(putting, StorageFull)
        self.assertEqual((0, []), (self.set_aside, self.discarded))

    def test_a_store_that_is_away_deletes_nothing(self) -> None:
        """It may only be slow: the bytes may be set aside next time."""

        async def away(_: NarKey) -> bool:
            raise Unavailable("away")

        self.patch(self.store, "quarantine", away)
        self.store.put(key_of(1), b"wrong")
        putting = Deferred.fromCoroutine(self.quarantine.put(key_of(1)))
        self.failureResultOf(putting, Unavailable)
        self.assertIn(key_of(1), self.store.objects)


class ReplacedTests(QuarantineCase):
    """What the store sets aside, since other bytes are published under its key."""

    def publish(self, number: int, data: bytes) -> None:
        sources = Path(self.mktemp())
        self.get(self.store.publish(key_of(number), spooled(sources, data)))

    def test_it_is_counted_and_bounded_like_any_other(self) -> None:
        """Also where nothing is kept."""
        for number in range(5):
            self.store.put(key_of(number), b"wrong")
            self.publish(number, b"right")
        self.clock.advance(REST_S)
        self.assertEqual((5, 3, ["count"] * 2), (self.set_aside, len(self.left()), self.discarded))
        self.use(count=0)
        self.store.put(key_of(9), b"wrong")
        self.publish(9, b"right")
        self.clock.advance(REST_S)
        self.assertEqual((set(), {b"right"}), (self.left(), set(self.store.objects.values())))


class LookTests(QuarantineCase):
    """What is discarded, by whom and how often."""

    def test_the_oldest_make_room(self) -> None:
        """As soon as one more is set aside; one line and the gauges say so."""
        for number in (1, 2, 3):
            self.there(number, ago_s=100.0 * number)
        with capturedLogs() as lines:
            self.put(4)
        self.assertEqual({key_of(1), key_of(2), key_of(4)}, self.left())
        self.assertEqual((["count"], [(3, 15)]), (self.discarded, self.shown))
        (line,) = lines
        self.assertEqual((1, 5), (line["files"], line["freed"]))

    def test_age_is_looked_after_though_nothing_is_set_aside(self) -> None:
        """That is what the ticker is for."""
        self.there(1)
        self.look()
        self.assertEqual([(1, 5)], self.shown)
        self.clock.advance(HOUR)
        self.look()
        self.assertEqual((set(), ["age"], (0, 0)), (self.left(), self.discarded, self.shown[-1]))

    def test_a_clock_that_is_set_makes_nothing_old(self) -> None:
        """As for every age."""
        self.there(1)
        for step in (HOUR, -HOUR, 48 * HOUR, -24 * HOUR):
            self.clock.ahead += step
            self.look()
            self.assertEqual({key_of(1)}, self.left())
        self.clock.advance(HOUR)
        self.look()
        self.assertEqual(set(), self.left())

    def test_nothing_to_do_is_said_nowhere(self) -> None:
        """No line every ten minutes."""
        self.there(1)
        with capturedLogs() as lines:
            self.look()
        self.assertEqual([], lines)

    def test_many_bad_files_cost_few_looks(self) -> None:
        """A thousand in a row are a look or two a second, and all within the bounds after."""
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
        self.assertEqual((3, 997), (len(self.left()), len(self.discarded)))
        self.assertEqual((3, 15), self.shown[-1])

    def test_what_was_set_aside_while_somebody_looks_is_looked_at_after(self) -> None:
        """Not at the same time, and not never."""
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
        """However many there are, no more than so many are held in memory."""
        self.use(count=10, size=10**9)
        for number in range(2 * BATCH + 50):
            self.there(number, ago_s=number)
        self.look()
        self.assertEqual({key_of(number) for number in range(10)}, self.left())
        self.assertEqual((10, 50), self.shown[-1])

    def test_one_process_at_a_time_discards(self) -> None:
        """Another one counts, and looks again while there is too much."""
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
        """Who only counts asks no more than the ticker does."""
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

    def test_what_cannot_be_discarded_keeps_no_other(self) -> None:
        """It is counted as there, and tried again with every look."""
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
        """Store or leases; one line each time, no storm of them."""
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
