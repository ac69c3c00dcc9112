"""A core whose store may hold ten NARs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ncps.cache.nar.objects import Objects
from ncps.cache.upkeep.evict import Bounds, Eviction
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, IdleNar, NarRecord
from tests.contract.samples import digest_of, entry, key_of, stored
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.metrics import counted
from tests.fakes.samples import UPSTREAM_KEY
from tests.unit.cache.rig import CoreCase

SIZE = 100
TRUSTED = str(UPSTREAM_KEY.public)
GRACE_S = 300.0
HOUR = 3600.0


class Meddled(MemoryCatalog):
    """A catalog that calls a function of the test just before it marks rows."""

    def __init__(self) -> None:
        super().__init__()
        self.meddle: list[Callable[[], object]] = []

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        while self.meddle:
            self.meddle.pop()()
        return await super().evict(idle)


class EvictionCase(CoreCase):
    """A store that may hold ten NARs of a hundred bytes; a run reduces it to eight."""

    bounds = Bounds(high=10 * SIZE, low=8 * SIZE, grace_s=GRACE_S)

    def setUp(self) -> None:
        super().setUp()
        self.catalog = self.meddled = Meddled()
        self.restart()
        self.objects = Objects(self.world)
        self.eviction = Eviction(
            self.world,
            self.narinfos,
            self.uses,
            is_arriving=lambda key: self.nars.is_arriving(key) or key in self.on_their_way,
            bounds=self.bounds,
        )
        self.on_their_way: set[NarKey] = set()

    @property
    def runs(self) -> float:
        """Number of runs that have ended."""
        return counted(self.metrics.lru_runs)

    def assertRemoved(self, *, nars: int, freed: int) -> None:
        """Check in the metrics that one run has removed this many NARs and bytes."""
        metrics = self.metrics
        found = counted(metrics.lru_nars), counted(metrics.lru_freed)
        self.assertEqual((1, (nars, freed)), (self.runs, found))

    def at(self, ago_s: float) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds() - ago_s, UTC)

    def keep(self, number: int, *, ago_s: float | None = None, size: int = SIZE) -> NarRecord:
        """Store a NAR; the higher its number, the longer ago."""
        moment = self.at(10_000.0 + number if ago_s is None else ago_s)
        times = {"stored_at": moment, "verified_at": moment, "last_used_at": moment}
        record = stored(number, stored_size=size, **times)
        self.get(self.catalog.mark_stored(record))
        self.get(self.catalog.add_narinfo(entry(number, verified_by=TRUSTED), record))
        self.store.put(record.key, bytes(size))
        self.get(self.sidecars.put(digest_of(number), b"text"))
        return record

    def is_stored(self, number: int) -> bool:
        """Check that row, bytes and sidecar agree; return whether the NAR is there."""
        record = self.catalog.records.get(key_of(number))
        there = record is not None and record.is_stored
        self.assertEqual(there, key_of(number) in self.store.objects, f"bytes of {number}")
        self.assertEqual(there, digest_of(number) in self.sidecars.texts, f"sidecar of {number}")
        return there

    def left(self, most: int = 30) -> list[int]:
        return [number for number in range(most) if self.is_stored(number)]

    def check(self) -> None:
        self.get(self.eviction.check())
