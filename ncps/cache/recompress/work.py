"""Work: gives twins to the stored NARs that want one, and removes the bytes that twins replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.logger import Logger

from ncps.aio.clocks import Ages, utc_now
from ncps.aio.recent import RecentSet
from ncps.cache.nar.objects import Objects
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.recompress.idle import Idleness
from ncps.cache.recompress.make import TwinMaker
from ncps.cache.world import World
from ncps.errors import Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import IdleNar, NarRecord

LEASE: Final = "recompress"
"""Name of the lease of the process that makes twins, one at a time in all processes."""
COMPRESSIONS: Final = ("xz", "bzip2", "none")
"""Compressions of NARs that get a twin."""
LOOK_S: Final = 5.0
"""Seconds between two looks whether there is time, and something to do."""
BATCH: Final = 20
REST_S: Final = 600.0
"""Seconds of rest after a twin could not be made: each attempt reads a NAR and fills the disk."""
PASSED_S: Final = 6 * 3600.0
"""Seconds for which a NAR is passed over that failed then, so that one never holds up all others:
the disk may be unable to read it."""
PASSED: Final = 1000
"""Such NARs that are remembered."""
REPLACED_LEASE: Final = "recompress-replaced"
REPLACED_S: Final = 300.0
"""Seconds between two looks for originals whose time is over."""


class Recompressing:
    """Makes twins while there is time.

    :param min_size: bytes of the file of a NAR that gets one, at least.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        maker: TwinMaker,
        verifier: Verifier,
        idleness: Idleness,
        *,
        min_size: int,
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._twins = world.twins
        self._metrics = world.metrics
        self._maker = maker
        self._verifier = verifier
        self._idleness = idleness
        self._min_size = min_size
        self._rests_until = 0.0
        self._passed = RecentSet(world.clock, ttl_s=PASSED_S, max_entries=PASSED)

    async def run(self) -> None:
        """Make twins until there is no time, or nothing to do.

        Raises StorageFull or Unavailable if that cannot go on; then it rests for a while.
        """
        if self._clock.seconds() < self._rests_until:
            return
        while self._idleness.is_idle():
            waiting = await self._twins.waiting(min_size=self._min_size, compressions=COMPRESSIONS)
            self._metrics.recompress_waiting.set(waiting)
            if not waiting:
                return
            batch = await self._twins.wanting(
                BATCH + len(self._passed), min_size=self._min_size, compressions=COMPRESSIONS
            )
            if not await self._try([nar for nar in batch if nar.key not in self._passed]):
                return

    async def _try(self, batch: Sequence[NarRecord]) -> bool:
        """Give some NARs a twin; False if none of them was settled."""
        is_settled = False
        for each in batch:
            if not self._idleness.is_idle():
                return False
            nar = await self._catalog.nar(each.key)
            if nar is None or not nar.is_stored:  # nothing is fetched for this work
                is_settled = True
                continue
            self._idleness.worked()
            try:
                is_settled = await self._settle(nar) or is_settled
            finally:
                self._idleness.worked()
        return is_settled

    async def _settle(self, nar: NarRecord) -> bool:
        """Give a NAR a twin, or note that it gets none; False if that has to wait."""
        try:
            outcome = await self._maker.make(nar)
        except NotFound:  # also one that is blocked
            outcome = "taken"
        except (StorageFull, Unavailable):
            self._passed.add(nar.key)
            self._rests_until = self._clock.seconds() + REST_S
            raise
        except Corrupt as error:
            self._log.warn(
                "{key} is not compressed anew: {reason}",
                key=nar.key.file_name,
                reason=str(error),
            )
            self._metrics.recompressions("failed").inc()
            await self._twins.tried(nar.key, utc_now(self._clock))
            await self._verifier.verify(nar)
            return True
        self._metrics.recompressions(outcome).inc()
        if outcome in {"large", "taken"}:
            await self._twins.tried(nar.key, utc_now(self._clock))
        return outcome != "busy"


class Originals:
    """Removes the bytes of originals, a while after their narinfos named the twin.

    Their rows stay, so that their URLs are answered from the upstream (P5).

    :param is_arriving: whether a NAR is being downloaded by this process.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        is_arriving: Callable[[NarKey], bool],
        *,
        keep_s: float,
    ) -> None:
        self._twins = world.twins
        self._catalog = world.inventory
        self._metrics = world.metrics
        self._objects = Objects(world)
        self._ages = Ages(world.clock)
        self._narinfos = narinfos
        self._is_arriving = is_arriving
        self._keep_s = keep_s

    async def check(self) -> None:
        """Remove those whose time is over. Raises Unavailable if that cannot be done now."""
        while batch := await self._twins.replaced(self._ages.before(self._keep_s), BATCH):
            if not await self._remove(batch):
                return

    async def _remove(self, batch: Sequence[IdleNar]) -> int:
        """Remove some; return how many were not in use."""
        async with self._objects.holding() as held:
            victims = [
                idle
                for idle in batch
                if not self._is_arriving(idle.nar.key) and await held.take(idle.nar)
            ]
            evicted = await self._catalog.evict(victims)
            for each in evicted:
                self._narinfos.changed(each.nar.key)
            for each in evicted:
                if await self._objects.remove(each.nar):
                    self._metrics.recompress_freed.inc(each.nar.stored_size or 0)
        if evicted:
            self._log.info("removed {count} NARs that zstd has replaced", count=len(evicted))
        return len(evicted)
