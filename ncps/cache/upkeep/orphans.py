"""Orphans: objects in the store that no record knows, and records that nobody has wanted for long.

An object without a record is left by a crash between bytes and row, or by a removal that stopped in
the middle. It is taken over when it is asked for; one that was not for a while is removed. Objects
older than the catalog come from elsewhere (the Go program, a catalog that was lost) and stay, for
`ncps rebuild`. Where it cannot be told whose an object is, it stays, too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import define
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.aio.clocks import Ages, utc_now
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.last_use import LastUse
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.upkeep.evict import LEASE
from ncps.cache.world import World
from ncps.errors import NcpsError
from ncps.ports import Stat

INTERVAL_S: Final = 24 * 3600.0
FIRST_S: Final = 600.0
"""After a start, which has other things to do."""

PACE: Final = 100
"""Objects looked at between two pauses, at most 1000 in a second."""
PAUSE_S: Final = 0.1

REMEMBERED_S: Final = 31 * 24 * 3600.0
"""How long URLs stay known that were handed out: clients believe narinfos for 30 days (P5)."""
FORGET_BATCH: Final = 500
"""Records that one transaction deletes: with the pauses between them 5,000 in a second, at most."""


@define
class Swept:
    """What a sweep has come to."""

    objects: int = 0
    freed: int = 0
    records: int = 0


class Orphans:
    """See the module.

    :param grace_s: how old an object without a record must be; 0 removes none.
    :param swept: told of each sweep.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        narinfos: NarInfos,
        uses: LastUse,
        *,
        grace_s: float,
        swept: Callable[[Swept], object] = lambda _: None,
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
        self._swept = swept

    async def recount(self) -> None:
        """See that the count of stored bytes is right. Never fails, as `sweep`."""
        try:
            off = await self._catalog.recount()
        except NcpsError as error:
            self._log.warn("stored NARs cannot be counted now: {reason}", reason=str(error))
            return
        if off:
            self._log.warn(
                "the count of stored bytes was wrong by {off}, and is right now", off=off
            )

    async def sweep(self) -> None:
        """Go through everything once. Never fails: what fails is logged, and the rest stays."""
        tally = Swept()
        try:
            await self._forget(tally)
            if self._grace_s > 0:
                await self._walk(tally)
        except NcpsError as error:
            self._log.warn("the sweep of the store stopped early: {reason}", reason=str(error))
        self._swept(tally)
        if tally.objects or tally.records:
            self._log.info(
                "removed {objects} objects that no record knew ({freed} bytes) and the records of"
                " {records} NARs that nobody has wanted for a month",
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
                await deferLater(self._clock, PAUSE_S)
            if self._is_due(stat, made) and not await self._objects.is_owned(stat.key):
                await self._remove(stat, made, tally)

    def _is_due(self, stat: Stat, made: datetime) -> bool:
        return made <= stat.modified < self._ages.before(self._grace_s)

    async def _remove(self, stat: Stat, made: datetime, tally: Swept) -> None:
        """Remove an object if it is still what it was, alone with it."""
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
        """Delete records of what is not stored and was not wanted for a month."""
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
            await deferLater(self._clock, PAUSE_S)
