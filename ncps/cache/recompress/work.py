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
from ncps.ports import IdleNar, NarRecord, TwinCandidates

LEASE: Final = "recompress"
"""Name of the lease of the process that makes twins, one at a time in all processes."""
COMPRESSIONS: Final = ("xz", "bzip2", "none")
"""Compressions of NARs that get a twin."""
REUSED_S: Final = 60.0
"""Seconds after which a NAR that a client asks for counts as asked for again: those that wait for
the same download ask before that."""
LOOK_S: Final = 5.0
"""Seconds between two looks whether there is time, and something to do."""
BATCH: Final = 20
CALM_S: Final = 300.0
"""Seconds of rest after nothing was found to do: to find that out takes a look at all NARs."""
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

    :param wanted: the NARs that get one.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        maker: TwinMaker,
        verifier: Verifier,
        idleness: Idleness,
        wanted: TwinCandidates,
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._twins = world.twins
        self._metrics = world.metrics
        self._maker = maker
        self._verifier = verifier
        self._idleness = idleness
        self._wanted = wanted
        self._rests_until = 0.0
        self._passed = RecentSet(world.clock, ttl_s=PASSED_S, max_entries=PASSED)

    def may_run(self) -> bool:
        """Whether there is time now, and no rest."""
        return self._clock.seconds() >= self._rests_until and self._idleness.is_idle()

    async def run(self) -> None:
        """Make twins until there is no time, or nothing to do.

        Raises StorageFull or Unavailable if that cannot go on; then it rests for a while.
        """
        while self.may_run():
            waiting = await self._twins.waiting(self._wanted)
            self._metrics.recompress_waiting.set(waiting)
            batch = await self._next() if waiting else []
            if not batch:
                self._rests_until = self._clock.seconds() + CALM_S
                return
            if not await self._try(batch):
                return

    async def _next(self) -> list[NarRecord]:
        batch = await self._twins.wanting(BATCH + len(self._passed), self._wanted)
        return [nar for nar in batch if nar.key not in self._passed]

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
    :param keep_s: seconds for which they stay after their last use.
    :param brief_s: the same while `is_tight`.
    :param is_tight: whether downloads may soon need their room on the disk.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        is_arriving: Callable[[NarKey], bool],
        *,
        keep_s: float,
        brief_s: float,
        is_tight: Callable[[], bool],
    ) -> None:
        self._twins = world.twins
        self._catalog = world.inventory
        self._metrics = world.metrics
        self._objects = Objects(world)
        self._ages = Ages(world.clock)
        self._narinfos = narinfos
        self._is_arriving = is_arriving
        self._keep_s = keep_s
        self._brief_s = min(keep_s, brief_s)
        self._is_tight = is_tight

    async def check(self) -> None:
        """Remove those whose time is over. Raises Unavailable if that cannot be done now."""
        while batch := await self._twins.replaced(self._ages.before(self._time()), BATCH):
            if not await self._remove(batch):
                return

    def _time(self) -> float:
        return self._brief_s if self._is_tight() else self._keep_s

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
