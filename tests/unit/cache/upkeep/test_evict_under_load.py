"""Eviction while NARs arrive: the limit holds, and no run ends too early."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from ncps.aio.clocks import utc_now
from ncps.cache.upkeep.evict import REST_S, Bounds, Eviction
from ncps.nix.narurl import NarKey
from tests.contract.samples import key_of, stored
from tests.fakes.stores import MemoryNarStore
from tests.unit.cache.rig import CoreCase

SIZE = 10
HIGH, LOW = 100, 90


class BusyStore(MemoryNarStore):
    """A store that gets other NARs while it removes one."""

    def __init__(self, case: EvictionUnderLoadTests) -> None:
        super().__init__()
        self._case = case
        self.arriving = 0

    async def delete(self, key: NarKey) -> bool:
        if self.arriving:
            self.arriving -= 1
            self._case.clock.advance(1)
            await self._case.store_one()
        return await super().delete(key)


class EvictionUnderLoadTests(CoreCase):
    """A store that may hold ten NARs, has ten, and gets more during a run."""

    def setUp(self) -> None:
        super().setUp()
        self.busy = BusyStore(self)
        self.made = 0

    async def store_one(self) -> None:
        """Store one more NAR, now."""
        now = utc_now(self.clock)
        self.made += 1
        self.busy.put(key_of(self.made), b"x" * SIZE)
        await self.catalog.mark_stored(stored(self.made, stored_size=SIZE, stored_at=now))

    def fill(self, count: int) -> None:
        for _ in range(count):
            self.get(self.store_one())
            self.clock.advance(1)

    def eviction(self, grace_s: float = 0.0) -> Eviction:
        return Eviction(
            evolve(self.world, nars=self.busy),
            self.narinfos,
            self.uses,
            is_arriving=lambda _: False,
            bounds=Bounds(high=HIGH, low=LOW, grace_s=grace_s),
        )

    def size(self) -> int:
        return self.get(self.catalog.stored_bytes())

    def test_arrivals_during_a_run_count_in_that_run(self) -> None:
        """A run also removes as much as arrives during it, until the mark is reached."""
        self.fill(12)
        self.busy.arriving = 15
        self.get(self.eviction().check())
        self.assertEqual(self.size(), LOW)
        self.assertEqual(self.made, 27)

    def test_the_next_write_is_heeded_after_a_run_under_load(self) -> None:
        """If a NAR arrives when the mark is reached, the run does not count as failed."""
        self.fill(12)
        eviction = self.eviction()
        count, reached = self.catalog.stored_bytes, 0

        async def counted() -> int:
            nonlocal reached
            size = await count()
            reached += size <= LOW
            if reached == 2:  # the run has made its last query
                reached += 1
                self.clock.advance(1)
                await self.store_one()
                await self.store_one()
            return size

        self.patch(self.catalog, "stored_bytes", counted)
        eviction.stored()
        self.patch(self.catalog, "stored_bytes", count)
        self.assertEqual(self.size(), LOW + 2 * SIZE)
        self.clock.advance(0.01)
        eviction.stored()
        self.assertEqual(self.size(), LOW)

    def test_after_a_run_that_found_nothing_writes_are_not_heeded_for_a_while(self) -> None:
        """While no NAR may be removed yet, most writes start no search."""
        self.fill(12)
        eviction = self.eviction(grace_s=60.0)
        eviction.stored()
        self.assertEqual(self.size(), 12 * SIZE)
        self.clock.advance(REST_S - 1)
        looked = self.catalog.idle
        self.patch(self.catalog, "idle", None)  # the query fails
        eviction.stored()
        self.patch(self.catalog, "idle", looked)
        self.clock.advance(timedelta(seconds=60).total_seconds())
        eviction.stored()
        self.assertEqual(self.size(), LOW)
