"""The background check of stored NARs: right ones are marked, wrong ones vanish from sight."""

from __future__ import annotations

import lzma
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.inspect import Inspection
from ncps.cache.narinfos import NarInfos
from ncps.cache.quarantine import Quarantine, QuarantineBounds
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import NarKey
from ncps.tasks import Tasks
from tests.contract.samples import key_of, stored
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.leases import MemoryLeases
from tests.fakes.stores import MemoryNarStore
from tests.fakes.threads import InlineThreads

NAR = bytes(range(256)) * 4096  # 1 MiB


class KnownNarInfos:
    """What inspection needs of the narinfos."""

    def __init__(self) -> None:
        self.withdrawn: list[NarKey] = []
        self.changes: list[NarKey] = []

    async def withdraw(self, key: NarKey) -> None:
        self.withdrawn.append(key)

    def changed(self, key: NarKey) -> None:
        self.changes.append(key)


class InspectionTests(SynchronousTestCase):
    """One stored xz file, inspected."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.catalog = MemoryCatalog()
        self.store = MemoryNarStore()
        self.quarantine = Quarantine(
            clock=self.clock,
            tasks=Tasks(self.clock),
            store=self.store,
            leases=MemoryLeases(),
            bounds=QuarantineBounds(count=10, size=10**9, age_s=86400.0),
        )
        self.narinfos = KnownNarInfos()
        self.results: list[str] = []

    def keep(self, data: bytes, nar: bytes = NAR) -> None:
        """Store one file whose narinfo promises this NAR."""
        self.store.put(key_of(1), data)
        record: dict[str, Any] = {
            "stored_size": len(data),
            "file_size": len(data),
            "file_hash": sha256_of(data),
            "nar_hash": sha256_of(nar),
            "nar_size": len(nar),
        }
        self.successResultOf(Deferred.fromCoroutine(self.catalog.mark_stored(stored(1, **record))))

    def run_inspection(self, rate: int = 1 << 30) -> Deferred[None]:
        """Start to inspect."""
        inspection = Inspection(
            clock=self.clock,
            catalog=self.catalog,
            store=self.store,
            quarantine=self.quarantine,
            narinfos=cast("NarInfos", self.narinfos),
            workers=InlineThreads(),
            bytes_per_second=rate,
            inspected=self.results.append,
        )
        return Deferred.fromCoroutine(inspection.run())

    def test_right_bytes_are_marked_as_verified(self) -> None:
        """A stored NAR with the right NarHash is marked and not inspected again."""
        self.keep(lzma.compress(NAR))
        done = self.run_inspection()
        self.clock.pump([0.1] * 10)
        self.successResultOf(done)
        self.assertEqual(self.results, ["right"])
        self.assertIsNotNone(self.catalog.records[key_of(1)].verified_at)
        self.successResultOf(self.run_inspection())
        self.assertEqual(self.results, ["right"])

    def test_wrong_bytes_are_set_aside(self) -> None:
        """A stored NAR that is another one is withdrawn, forgotten and quarantined."""
        self.keep(lzma.compress(NAR[::-1]))
        done = self.run_inspection()
        self.clock.pump([0.1] * 10)
        self.successResultOf(done)
        self.assertEqual(self.results, ["wrong"])
        self.assertEqual(self.narinfos.withdrawn, [key_of(1)])
        self.assertNotIn(key_of(1), self.catalog.records)
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.store.stat(key_of(1)))))
        self.assertEqual([(key_of(1), lzma.compress(NAR[::-1]))], self.store.quarantined)

    def test_a_bomb_is_set_aside(self) -> None:
        """A file that expands beyond its NarSize is given up and set aside."""
        self.keep(lzma.compress(NAR * 8))
        done = self.run_inspection()
        self.clock.pump([0.1] * 10)
        self.successResultOf(done)
        self.assertEqual(self.results, ["wrong"])

    def test_missing_bytes_are_noted(self) -> None:
        """A row whose file is gone no longer says that it is stored."""
        self.keep(lzma.compress(NAR))
        self.successResultOf(Deferred.fromCoroutine(self.store.delete(key_of(1))))
        self.successResultOf(self.run_inspection())
        self.assertEqual(self.results, ["missing"])
        self.assertFalse(self.catalog.records[key_of(1)].is_stored)
        self.assertEqual(self.narinfos.changes, [key_of(1)])

    def test_the_rate_is_kept(self) -> None:
        """A file of N bytes takes at least N divided by the rate in seconds."""
        data = lzma.compress(NAR)
        self.keep(data)
        done = self.run_inspection(rate=len(data) // 10)
        self.clock.advance(9.9)
        self.assertNoResult(done)
        self.clock.pump([0.5] * 4)
        self.successResultOf(done)
        self.assertEqual(self.results, ["right"])

    def test_a_rate_of_zero_inspects_nothing(self) -> None:
        """Who switches the check off is left alone."""
        self.keep(lzma.compress(NAR[::-1]))
        self.successResultOf(self.run_inspection(rate=0))
        self.assertEqual(self.results, [])
