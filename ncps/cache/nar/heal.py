"""Healing: stored bytes that are found lost or damaged are set aside and their row corrected.

What follows is a miss like any other: the NAR is fetched again from where it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from ncps.aio.waiting import SingleFlight
from ncps.cache.nar.quarantine import Quarantine
from ncps.cache.nar.served import stored_key
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord


class Healing:
    """See the module.

    :param is_arriving: whether a NAR is being downloaded: then somebody has healed it.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        quarantine: Quarantine,
        narinfos: NarInfos,
        is_arriving: Callable[[NarKey], bool],
    ) -> None:
        self._catalog = world.catalog
        self._quarantine = quarantine
        self._narinfos = narinfos
        self._is_arriving = is_arriving
        self._flights: SingleFlight[NarKey, None] = SingleFlight(world.tasks, "heal")

    async def heal(self, nar: NarRecord, trouble: NcpsError) -> None:
        """Correct the row of bytes that are lost or damaged; set damaged ones aside. Unavailable.

        Goes on to its end if the client that found it leaves.
        """
        await self._flights.join(nar.key, partial(self._heal, nar, trouble))

    async def spoiled(self, nar: NarRecord, trouble: Corrupt) -> None:
        """Heal what was found damaged while it was being read, unless somebody has. Unavailable.

        What lies under the key may be new by now, so only the record that was read from counts.
        """
        current = await self._catalog.nar(nar.key)
        if current is None or current.stored_at != nar.stored_at or self._is_arriving(nar.key):
            return
        await self.heal(nar, trouble)

    async def _heal(self, nar: NarRecord, trouble: NcpsError) -> None:
        self._log.error(
            "stored NAR {key} is {what}; it will be fetched again: {reason}",
            key=nar.key.file_name,
            what="missing" if isinstance(trouble, NotFound) else "damaged",
            reason=str(trouble),
        )
        if isinstance(trouble, Corrupt):
            try:
                await self._quarantine.put(stored_key(nar))
            except (StorageFull, Unavailable) as error:
                self._log.warn(
                    "{key} cannot be set aside: {reason}",
                    key=stored_key(nar).file_name,
                    reason=str(error),
                )
        await self._catalog.mark_missing(nar.key)
        self._narinfos.changed(nar.key)
