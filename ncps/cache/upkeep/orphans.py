"""Orphans: removes objects without a record, and records that were unused for a long time.

A crash between bytes and row leaves an object without a record. So does a removal that stopped
halfway. The object is adopted when a client asks for it; without that it is removed after a grace
period. Objects older than the catalog come from elsewhere (the Go program, a lost catalog) and
stay, for `ncps rebuild`. An object also stays while the sweep cannot find out its owner.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from attrs import define
from twisted.logger import Logger

from ncps.aio.clocks import Ages, utc_now
from ncps.aio.waiting import sleep
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import LastUse
from ncps.cache.upkeep.evict import LEASE
from ncps.cache.world import World
from ncps.errors import NcpsError
from ncps.ports import Stat

INTERVAL_S: Final = 24 * 3600.0
FIRST_S: Final = 600.0
"""Seconds from the start to the first sweep, because the start has other work."""

PACE: Final = 100
"""Objects checked between two pauses: at most 1000 in a second."""
PAUSE_S: Final = 0.1

REMEMBERED_S: Final = 31 * 24 * 3600.0
"""Seconds for which the cache remembers the URLs that it gave to clients: clients keep narinfos for
30 days (P5)."""
FORGET_BATCH: Final = 500
"""Records that one transaction deletes; with the pauses in between, at most 5,000 in a second."""


@define
class Swept:
    """The result of a sweep."""

    objects: int = 0
    freed: int = 0
    records: int = 0


class Orphans:
    """Sweeps the store and the catalog.

    :param grace_s: the least age in seconds of an object that is removed; 0 removes none.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        uses: LastUse,
        *,
        grace_s: float,
    ) -> None:
        self._clock = world.clock
        self._ages = Ages(world.clock)
        self._catalog = world.inventory
        self._store = world.nars
        self._objects = Objects(world)
        self._leases = world.leases
        self._narinfos = narinfos
        self._uses = uses
        self._grace_s = grace_s
        self._metrics = world.metrics

    async def recount(self) -> None:
        """Correct the count of stored bytes. Raises nothing: it logs errors."""
        try:
            off = await self._catalog.recount()
        except NcpsError as error:
            self._log.warn("stored NARs cannot be counted now: {reason}", reason=str(error))
            return
        if off:
            self._log.warn("the count of stored bytes was wrong by {off}; it is corrected", off=off)

    async def sweep(self) -> None:
        """Sweep everything once. Raises nothing: it logs errors, and the remaining orphans stay."""
        tally = Swept()
        try:
            await self._forget(tally)
            if self._grace_s > 0:
                await self._walk(tally)
        except NcpsError as error:
            self._log.warn("the sweep of the store stopped early: {reason}", reason=str(error))
        self._metrics.orphans.inc(tally.objects)
        self._metrics.orphans_freed.inc(tally.freed)
        if tally.objects or tally.records:
            self._log.info(
                "removed {objects} objects without a record ({freed} bytes) and the records of"
                " {records} NARs that no client asked for within a month",
                objects=tally.objects,
                freed=tally.freed,
                records=tally.records,
            )

    async def _walk(self, tally: Swept) -> None:
        made = await self._catalog.created_at()
        seen = 0
        async for stat in self._store.walk():
            seen += 1
            if seen % PACE == 0:
                await sleep(self._clock, PAUSE_S)
            if self._is_due(stat, made) and not await self._objects.is_owned(stat.key):
                await self._remove(stat, made, tally)

    def _is_due(self, stat: Stat, made: datetime) -> bool:
        return made <= stat.modified < self._ages.before(self._grace_s)

    async def _remove(self, stat: Stat, made: datetime, tally: Swept) -> None:
        """Remove an object under its leases, unless it has changed or has an owner by now."""
        key = stat.key
        async with self._leases.hold(LEASE) as lease, self._objects.holding() as held:
            if not await held.take_object(key):
                return
            current = await self._store.stat(key)
            if current is None or not self._is_due(current, made):
                return
            if lease.is_lost or await self._objects.is_owned(key):
                return
            if await self._store.delete(key):
                tally.objects += 1
                tally.freed += current.size

    async def _forget(self, tally: Swept) -> None:
        """Delete records of NARs that are not stored and were unused for `REMEMBERED_S`."""
        await self._uses.flush()
        now = utc_now(self._clock)
        before = self._ages.before(REMEMBERED_S)
        while True:
            forgotten = await self._catalog.forget_unused(before, now, FORGET_BATCH)
            for key in forgotten.keys:
                self._narinfos.changed(key)
            tally.records += len(forgotten.keys)
            if forgotten.is_all:
                return
            await sleep(self._clock, PAUSE_S)
