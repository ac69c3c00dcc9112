"""Abandoned uploads: removes NARs whose narinfo never came, after a grace period.

A client uploads the NAR of a path before its narinfo. If the client stops in between, nobody can
use the NAR. The NAR stays for a grace period, so that the client can continue. Row and bytes are
removed under the lease of the NAR, which the upload of a narinfo holds, too.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ncps.aio.clocks import Ages
from ncps.aio.waiting import sleep
from ncps.cache.nar.objects import Objects
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import LastUse
from ncps.cache.world import World
from ncps.errors import NcpsError
from ncps.ports import IdleNar

BATCH: Final = 100
PAUSE_S: Final = 0.1
"""Uploads that one query finds, and the seconds between two queries."""


class AbandonedUploads:
    """Removes uploads that have no narinfo.

    :ivar grace_s: seconds for which an upload stays after it was stored or last asked for.
    """

    _log = Logger()

    def __init__(self, world: World, narinfos: NarInfos, uses: LastUse, *, grace_s: float) -> None:
        self._clock = world.clock
        self._ages = Ages(world.clock)
        self._catalog = world.inventory
        self._objects = Objects(world)
        self._narinfos = narinfos
        self._uses = uses
        self.grace_s = grace_s
        self._removed = world.metrics.abandoned_uploads

    async def check(self) -> None:
        """Remove the uploads that are due. Raises nothing: it logs errors, and the others stay."""
        count = freed = 0
        try:
            await self._uses.flush()
            while found := await self._catalog.abandoned(self._ages.before(self.grace_s), BATCH):
                gone = [idle.nar.stored_size or 0 for idle in found if await self._remove(idle)]
                count, freed = count + len(gone), freed + sum(gone)
                if not gone:  # other processes have their leases, or they are in use again
                    break
                await sleep(self._clock, PAUSE_S)
        except NcpsError as error:
            self._log.warn(
                "uploads without a narinfo cannot be removed now: {reason}", reason=str(error)
            )
        self._removed.inc(count)
        if count:
            self._log.info(
                "removed {count} uploaded NARs ({freed} bytes) for which no narinfo came within"
                " {grace:g} s",
                count=count,
                freed=freed,
                grace=self.grace_s,
            )

    async def _remove(self, idle: IdleNar) -> bool:
        """Remove an upload under its lease, unless it has a narinfo by now or is in use again."""
        key = idle.nar.key
        async with self._objects.holding() as held:
            if not await held.take(idle.nar) or await self._catalog.narinfos_of(key):
                return False
            if not await self._catalog.evict([idle]):
                return False
            self._narinfos.changed(key)
            await self._objects.remove(idle.nar)
            return True
