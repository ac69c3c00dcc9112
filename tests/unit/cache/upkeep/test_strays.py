"""Sidecars whose NAR is not stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.upkeep.evict import LEASE
from ncps.cache.upkeep.orphans import PACE, PAUSE_S
from ncps.cache.upkeep.strays import Strays
from ncps.errors import Unavailable
from ncps.ports import NarInfoEntry, NarRecord
from tests.contract.samples import digest_of, entry, record, stored
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.leases import MemoryLeases
from tests.fakes.stores import MemoryNarInfoStore

DAY = 86400.0


class StrayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = datetime(2026, 6, 10, tzinfo=UTC).timestamp()
        self.catalog = MemoryCatalog()
        self.catalog.made_at = self.ago(100 * DAY)
        self.store = MemoryNarInfoStore()
        self.leases = MemoryLeases()
        self.kept: list[str] = []

    def ago(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds() - seconds, UTC)

    def now(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def put(self, number: int, days: float = 2.0) -> None:
        digest = digest_of(number)
        self.now(self.store.put(digest, b"text"))
        self.store.times[digest] = self.ago(days * DAY)

    def sweep(self, grace_s: float = DAY) -> Deferred[int]:
        async def keep_beside(entry: NarInfoEntry, _: NarRecord) -> None:
            self.kept.append(entry.digest)

        strays = Strays(
            clock=self.clock,
            catalog=self.catalog,
            store=self.store,
            leases=self.leases,
            grace_s=grace_s,
            keep_beside=keep_beside,
        )
        return Deferred.fromCoroutine(strays.sweep())

    def left(self) -> set[str]:
        self.successResultOf(self.sweep())
        self.assertEqual({}, self.leases.held)
        return set(self.store.texts)

    def test_those_without_a_stored_nar_go(self) -> None:
        """Unknown ones, and those of an evicted NAR, are removed; the others stay."""
        for number in (1, 2, 3):
            self.put(number)
        for number in (1, 2):
            self.now(self.catalog.add_narinfo(entry(number), record(number)))
        self.now(self.catalog.mark_stored(stored(1)))
        self.assertEqual(2, self.successResultOf(self.sweep()))
        self.assertEqual({digest_of(1)}, set(self.store.texts))

    def test_young_ones_stay_and_those_of_an_earlier_catalog(self) -> None:
        """A NAR may be arriving, and `ncps rebuild` may come later."""
        self.put(1, 0.9)
        self.put(2, 1.1)
        self.put(3, 100.1)
        self.assertEqual({digest_of(1), digest_of(3)}, self.left())

    def test_no_grace_is_no_sweep(self) -> None:
        """The setting 0 removes nothing."""
        self.put(1, 50)
        self.assertEqual(0, self.successResultOf(self.sweep(0)))
        self.assertEqual({digest_of(1)}, set(self.store.texts))

    def test_what_is_stored_meanwhile_keeps_its_sidecar(self) -> None:
        """The sweep looks for the NAR before and after the removal, and restores the sidecar."""
        for number in (1, 2):
            self.put(number)
            self.now(self.catalog.add_narinfo(entry(number), record(number)))
        lease = self.now(self.leases.try_hold(LEASE))
        sweep = self.sweep()
        self.assertNoResult(sweep)
        self.now(self.catalog.mark_stored(stored(1)))
        delete = self.store.delete

        async def deleted(digest: str) -> bool:
            await self.catalog.mark_stored(stored(2))
            return await delete(digest)

        self.patch(self.store, "delete", deleted)
        self.now(lease.release())
        self.assertEqual(1, self.successResultOf(sweep))
        self.assertEqual({digest_of(1)}, set(self.store.texts))
        self.assertEqual([digest_of(2)], self.kept)

    def test_unsure_answer_removes_nothing(self) -> None:
        """Without the catalog, the store or the leases nothing is removed, without an error."""
        self.put(1)
        for part in (self.catalog, self.store, self.leases):
            part.failing = Unavailable("away")
            self.successResultOf(self.sweep())
            part.failing = None
            self.assertEqual({digest_of(1)}, set(self.store.texts))
        self.assertEqual(set(), self.left())

    def test_the_sweep_is_slow(self) -> None:
        """It pauses after every hundred narinfos."""
        for number in range(PACE + 1):
            self.put(number, 0.1)
        sweep = self.sweep()
        self.assertNoResult(sweep)
        self.clock.advance(PAUSE_S)
        self.successResultOf(sweep)
