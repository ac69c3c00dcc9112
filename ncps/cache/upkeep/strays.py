"""Strays: removes sidecars whose NAR is no longer stored.

A rebuild of a lost catalog reads the sidecars (D13), so a sidecar is useful only while its NAR is
stored. Eviction and healing remove it with the NAR. This sweep removes the sidecars that they could
not remove, and those left by a process that died between two steps. A stray that is older than the
catalog stays, for `ncps rebuild`. So does a sidecar whose NAR may be arriving.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.clocks import Ages
from ncps.aio.waiting import sleep
from ncps.cache.upkeep.evict import LEASE
from ncps.cache.upkeep.orphans import PACE, PAUSE_S
from ncps.errors import NcpsError
from ncps.ports import Inventory, Leases, NarInfoEntry, NarInfoStore, NarRecord


class Strays:
    """Sweeps the sidecars in the store.

    :param grace_s: the least age in seconds of a stray that is removed; 0 removes none.
    :param keep_beside: puts the sidecar of a stored NAR into the store.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        catalog: Inventory,
        store: NarInfoStore,
        leases: Leases,
        grace_s: float,
        keep_beside: Callable[[NarInfoEntry, NarRecord], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._ages = Ages(clock)
        self._catalog = catalog
        self._store = store
        self._leases = leases
        self._grace_s = grace_s
        self._keep_beside = keep_beside

    async def sweep(self) -> int:
        """Remove the strays; return how many. Raises nothing: it logs errors, the others stay."""
        count = 0
        try:
            if self._grace_s > 0:
                made = await self._catalog.created_at()
                seen = 0
                async for digest in self._store.walk():
                    seen += 1
                    if seen % PACE == 0:
                        await sleep(self._clock, PAUSE_S)
                    if await self._is_stray(digest, made):
                        count += await self._remove(digest, made)
        except NcpsError as error:
            self._log.warn("the sweep of narinfos stopped early: {reason}", reason=str(error))
        if count:
            self._log.info(
                "removed {count} narinfos from the store that had no NAR beside them", count=count
            )
        return count

    async def _stored(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        """Return the narinfo and the row of its NAR; None if the NAR is not stored."""
        found = await self._catalog.narinfo(digest)
        return found if found is not None and found[1].is_stored else None

    async def _is_stray(self, digest: str, made: datetime) -> bool:
        if await self._stored(digest) is not None:
            return False
        written = await self._store.written(digest)
        return written is not None and made <= written < self._ages.before(self._grace_s)

    async def _remove(self, digest: str, made: datetime) -> bool:
        """Remove a stray, unless its NAR was stored since then."""
        async with self._leases.hold(LEASE) as lease:
            if lease.is_lost or not await self._is_stray(digest, made):
                return False
            is_removed = await self._store.delete(digest)
            found = await self._stored(digest)
            if found is not None:  # the NAR was stored at this moment
                await self._keep_beside(*found)
            return is_removed
