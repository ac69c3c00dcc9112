"""Maps and sets with limits of size and time."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.recent import BoundedMap, RecentMap, RecentSet
from tests.fakes.clocks import SetClock


class BoundedMapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.held: BoundedMap[int, str] = BoundedMap(6, size_of=len, forgotten=self.told.append)

    def test_bounded_by_size_oldest_first(self) -> None:
        """The map limits the sum of sizes, not the number of values."""
        for key, value in enumerate(("aaa", "b", "cc", "dd")):
            self.held.put(key, value)
        self.assertEqual([None, "b", "cc", "dd"], [self.held.get(key) for key in range(4)])
        self.assertEqual((3, 5, ["aaa"]), (len(self.held), self.held.size, self.told))
        self.held.put(4, "larger than all")
        self.assertEqual((0, 0), (len(self.held), self.held.size))

    def test_renewed_goes_last(self) -> None:
        """A map whose keys are renewed at each use forgets the least recently used one."""
        for key in range(3):
            self.held.put(key, "ab")
        self.held.renew(0)
        self.held.renew(9)
        self.held.put(3, "ab")
        self.assertEqual([True, False], [self.held.get(key) is not None for key in (0, 1)])

    def test_dropped_values_are_reported(self) -> None:
        """`forgotten` gets each replaced or removed value, but not those of `take_all`."""
        self.held.put(1, "a")
        self.held.put(1, "b")
        self.held.forget(1)
        self.held.forget(1)
        self.assertEqual(["a", "b"], self.told)
        self.held.put(2, "c")
        self.held.clear()
        self.held.put(3, "d")
        self.assertEqual(["d"], self.held.take_all())
        self.assertEqual(["a", "b", "c"], self.told)
        self.assertEqual((0, 0), (len(self.held), self.held.size))


class RecentMapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recent: RecentMap[str, int] = RecentMap(self.clock, ttl_s=10, max_entries=2)

    def test_each_value_has_its_time(self) -> None:
        """A value that is put again gets a new time and the last place."""
        self.recent.put("a", 1)
        self.recent.put("b", 2)
        self.clock.advance(5)
        self.recent.put("a", 3)
        self.clock.advance(5)
        self.assertEqual([3, None], [self.recent.get(key) for key in "ab"])
        self.assertEqual(1, len(self.recent))
        for key in "cd":
            self.recent.put(key, 4)
        self.assertEqual([None, 4, 4], [self.recent.get(key) for key in "acd"])

    def test_forgotten_and_cleared(self) -> None:
        """One key or all can be removed; a missing key does no harm."""
        for key in "ab":
            self.recent.put(key, 1)
        self.recent.forget("a")
        self.recent.forget("x")
        self.assertEqual([None, 1], [self.recent.get(key) for key in "ab"])
        self.recent.clear()
        self.assertIsNone(self.recent.get("b"))


class RecentSetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recent = RecentSet(self.clock, ttl_s=10, max_entries=3)

    def test_remembered_and_forgotten_in_time(self) -> None:
        """A key is in the set for its time, and not longer."""
        self.recent.add("a")
        self.clock.advance(9.9)
        self.assertIn("a", self.recent)
        self.clock.advance(0.1)
        self.assertNotIn("a", self.recent)
        self.assertEqual(0, len(self.recent))

    def test_time_of_day_does_not_matter(self) -> None:
        """A change of the time of day neither removes a key nor keeps it."""
        clock = SetClock()
        recent = RecentSet(clock, ttl_s=10, max_entries=3)
        recent.add("a")
        for step in (3600.0, -7200.0, 3600.0):
            clock.ahead += step
            self.assertIn("a", recent)
        clock.ahead -= 3600.0
        clock.advance(10)
        self.assertNotIn("a", recent)

    def test_taken_back(self) -> None:
        """A key can be removed early; a missing key does no harm."""
        self.recent.add("a")
        self.recent.forget("a")
        self.recent.forget("b")
        self.assertNotIn("a", self.recent)

    def test_bounded_oldest_first(self) -> None:
        """The number of keys has a limit."""
        for key in "abcad":
            self.recent.add(key)
        self.assertEqual([True, False, True, True], [key in self.recent for key in "abcd"])

    def test_may_be_switched_off(self) -> None:
        """Without time or without room the set stays empty."""
        for ttl_s, max_entries in ((0, 3), (3, 0)):
            recent = RecentSet(self.clock, ttl_s=ttl_s, max_entries=max_entries)
            recent.add("a")
            self.assertNotIn("a", recent)
