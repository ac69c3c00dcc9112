"""Healing: corrects the row of stored bytes that are lost or damaged, and sets damaged ones aside.

After that, the next request is a miss like any other: the NAR is fetched again from its origin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from ncps.aio.single_flight import SingleFlight
from ncps.cache.nar.quarantine import Quarantine
from ncps.cache.nar.stored import stored_key
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord


class Healing:
    """Heals each NAR once, for all clients that find it lost or damaged at the same time.

    :param is_arriving: whether a NAR is being downloaded: then another client has healed it.
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
        """Correct the row of bytes that are lost or damaged; set damaged ones aside.

        Continues if the client that found them leaves. Raises Unavailable if the catalog cannot be
        changed.
        """
        await self._flights.join(nar.key, partial(self._heal, nar, trouble))

    async def spoiled(self, nar: NarRecord, trouble: Corrupt) -> None:
        """Heal bytes that a reader found damaged, unless that is done already.

        Does nothing if the row has changed since the reader opened the bytes, because the key may
        have new bytes by now. Raises Unavailable as `heal`.

        :param nar: the row by which the reader opened them.
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
