"""Upkeep of realisations: forgets unused ones, and restores lost ones.

A fetched realisation can be fetched again. So it is forgotten if no client has asked for it within
`UNUSED_S` seconds, or if there are more than `MOST`. An uploaded one stays. If the database is
lost, the copy in the store restores it (D13).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from attrs import define
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.cache.realisation.record import RealisationRecords, parse_copy
from ncps.cache.realisation.serve import PulledRealisations
from ncps.cache.world import World
from ncps.errors import Malformed, NcpsError, Unavailable

LOOK_S: Final = 600.0
"""Seconds between two looks. A look also writes the times of use."""
UNUSED_S: Final = 90 * 24 * 3600.0
MOST: Final = 100_000
"""Fetched realisations that are kept, at most."""
BATCH: Final = 500
"""Realisations that one transaction forgets."""

_log = Logger()


class UnusedRealisations:
    """Forgets fetched realisations that are not used."""

    def __init__(self, world: World, records: RealisationRecords) -> None:
        self._clock = world.clock
        self._rows = world.realisations
        self._records = records

    async def look(self) -> None:
        """Write the times of use, then forget a batch of unused realisations.

        Raises Unavailable if the database is away.
        """
        await self._records.flush()
        before = utc_now(self._clock) - timedelta(seconds=UNUSED_S)
        count = await self._rows.forget_unused(before, MOST, BATCH)
        if count:
            _log.info("forgot {count} realisations that nobody has asked for", count=count)


@define
class Copies:
    """The result of restoring the copies of uploaded realisations."""

    restored: int = 0
    refused: int = 0


async def restore(world: World, realisations: PulledRealisations) -> Copies:
    """Enter each copy in the store into the database; log a damaged one.

    Raises Unavailable if the store or the database is away.
    """
    found = Copies()
    async for digest in world.realisation_copies.walk():
        text = await world.realisation_copies.get(digest)
        if text is None:
            continue
        try:
            copy = parse_copy(text)
            if copy.key.digest != digest:
                raise Malformed(f"it is of {copy.key.path}")
            await realisations.restore(copy)
        except Unavailable:
            raise
        except NcpsError as error:
            found.refused += 1
            _log.warn(
                "realisation {digest} of the store is not used: {reason}",
                digest=digest,
                reason=str(error),
            )
        else:
            found.restored += 1
    return found
