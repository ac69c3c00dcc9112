"""Work: makes twins of stored NARs, and removes the originals that twins have replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import Ages, utc_now
from ncps.aio.recent import RecentSet
from ncps.cache.nar.objects import Objects
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import LastUse
from ncps.cache.recompress.idle import Idleness
from ncps.cache.recompress.make import TwinMaker
from ncps.cache.world import World
from ncps.errors import Conflict, Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import IdleNar, NarRecord, TwinCandidates

LEASE: Final = "recompress"
"""Name of the lease under which a process makes twins, so that only one does."""
COMPRESSIONS: Final = ("xz", "bzip2", "none")
"""Compressions of NARs of which ncps makes twins."""
REUSED_S: Final = 60.0
"""Seconds after the storing of a NAR from which a request counts as another use. The clients that
waited for the same download ask before that."""
RECENT_S: Final = 7 * 24 * 3600.0
"""Seconds for which such a request makes a NAR worth a twin; an old store has many older ones."""
LOOK_S: Final = 5.0
"""Seconds between two checks whether the machine is idle."""
BATCH: Final = 20
"""NARs that are read from the catalog in one transaction."""
CALM_S: Final = 300.0
"""Seconds of rest after no NAR was left: the catalog looks through all NARs to find that out."""
REST_S: Final = 600.0
"""Seconds of rest after an attempt failed, because each attempt reads a NAR and writes a file."""
PASSED_S: Final = 6 * 3600.0
"""Seconds for which ncps skips a NAR whose attempt failed. Without that, a NAR that the disk cannot
read would stop the work on all others."""
PASSED: Final = 1000
"""Number of such NARs that a process remembers, at most."""
REPLACED_LEASE: Final = "recompress-replaced"
"""Name of the lease under which a process removes originals."""
REPLACED_S: Final = 300.0
"""Seconds between two checks for originals that may be removed."""


class Recompressing:
    """Makes twins while the machine is idle.

    :param wanted: the NARs of which it makes twins; with `reused_s`, only those that a client
        asked for within `RECENT_S`.
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
        self._ages = Ages(world.clock)
        self._rests_until = 0.0
        self._passed = RecentSet(world.clock, ttl_s=PASSED_S, max_entries=PASSED)

    def may_run(self) -> bool:
        """Return whether the machine is idle and no rest is due."""
        return self._clock.seconds() >= self._rests_until and self._idleness.is_idle()

    async def run(self) -> None:
        """Make twins until the machine is not idle or no NAR is left.

        Raises StorageFull or Unavailable if an attempt fails for that reason; a rest follows.
        """
        while self.may_run():
            wanted = self._candidates()
            waiting = await self._twins.waiting(wanted)
            self._metrics.recompress_waiting.set(waiting)
            batch = await self._next(wanted) if waiting else []
            if not batch:
                self._rests_until = self._clock.seconds() + CALM_S
                return
            if not await self._try(batch):
                return

    def _candidates(self) -> TwinCandidates:
        if self._wanted.reused_s is None:
            return self._wanted
        return evolve(self._wanted, used_since=self._ages.before(RECENT_S))

    async def _next(self, wanted: TwinCandidates) -> list[NarRecord]:
        """Return the next NARs, without those that have failed lately."""
        batch = await self._twins.wanting(BATCH + len(self._passed), wanted)
        return [nar for nar in batch if nar.key not in self._passed]

    async def _try(self, batch: Sequence[NarRecord]) -> bool:
        """Make twins of some NARs; return False if none of them is settled."""
        is_settled = False
        for each in batch:
            if not self._idleness.is_idle():
                return False
            nar = await self._catalog.nar(each.key)
            if nar is None or not nar.is_stored:  # ncps fetches nothing for this work
                is_settled = True
                continue
            self._idleness.worked()
            try:
                is_settled = await self._settle(nar) or is_settled
            finally:
                self._idleness.worked()
        return is_settled

    async def _settle(self, nar: NarRecord) -> bool:
        """Make a twin of a NAR, or note that it gets none; return False if it has to wait."""
        try:
            outcome = await self._maker.make(nar)
        except NotFound:  # or Blocked
            outcome = "taken"
        except Conflict:
            outcome = "busy"
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
        if outcome in {"large", "taken"} and await self._is_stored(nar.key):
            await self._twins.tried(nar.key, utc_now(self._clock))
        return outcome != "busy"

    async def _is_stored(self, key: NarKey) -> bool:
        """Return whether a NAR is stored; if it is removed and comes back, it may get a twin."""
        nar = await self._catalog.nar(key)
        return nar is not None and nar.is_stored


class Originals:
    """Removes the bytes of originals some time after the narinfos named the twin.

    The rows stay, so that ncps answers their URLs from the upstream (P5).

    :param is_arriving: returns whether this process downloads a NAR.
    :param stays_s: returns the seconds for which an original stays now after its last use.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        uses: LastUse,
        *,
        is_arriving: Callable[[NarKey], bool],
        stays_s: Callable[[], float],
    ) -> None:
        self._twins = world.twins
        self._catalog = world.inventory
        self._metrics = world.metrics
        self._objects = Objects(world)
        self._ages = Ages(world.clock)
        self._narinfos = narinfos
        self._uses = uses
        self._is_arriving = is_arriving
        self._stays_s = stays_s

    async def check(self) -> None:
        """Remove the originals that are due. Raises Unavailable if that cannot be done now."""
        while batch := await self._twins.replaced(self._ages.before(self._stays_s()), BATCH):
            if not await self._remove(batch):
                return

    async def _remove(self, batch: Sequence[IdleNar]) -> int:
        """Remove those of some originals that are not in use; return their number."""
        async with self._objects.holding() as held:
            victims = [
                idle
                for idle in batch
                if not self._is_arriving(idle.nar.key) and await held.take(idle.nar)
            ]
            await self._uses.flush()  # `evict` leaves those that clients have just asked for
            evicted = await self._catalog.evict(victims)
            for each in evicted:
                self._narinfos.changed(each.nar.key)
            for each in evicted:
                if await self._objects.remove(each.nar):
                    self._metrics.recompress_freed.inc(each.nar.stored_size or 0)
        if evicted:
            self._log.info("removed {count} NARs that zstd has replaced", count=len(evicted))
        return len(evicted)
