"""Quarantine: keeps stored NAR files that were found wrong, for an operator, within bounds.

    found wrong ------> set aside --> more than the bounds allow? --> the oldest are discarded
       |                    ^
       |                    +-- the store: right bytes are published under the same key
       +--> deleted immediately, if the bounds or the disk leave no room for it

However often an upstream lies, the quarantine takes no more disk than the bounds say. A process
that dies on the way leaves at worst a file in the quarantine, which the next look finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from attrs import define, frozen
from twisted.logger import Logger

from ncps.aio.clocks import Ages
from ncps.aio.tasks import Coalesced
from ncps.cache.world import World
from ncps.errors import NcpsError, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Lease, SetAside

LEASE: Final = "quarantine"
"""Name of the lease of the process that discards."""

LOOK_S: Final = 600.0
"""Seconds between two looks at the quarantine while this process sets nothing aside."""
REST_S: Final = 1.0
"""The least seconds between two looks."""
REST_SHARE: Final = 10.0
"""The least time between two looks, as a multiple of the duration of the last look."""
TROUBLE_S: Final = 30.0
"""Seconds until the next look after a look that failed."""
LONGEST_REST_S: Final = 60.0
BATCH: Final = 1000
"""Number of files beyond the bounds that a look holds in memory at the same time."""


@frozen(kw_only=True)
class QuarantineBounds:
    """The bounds of the quarantine. If one of them is 0, nothing is kept.

    :param count: number of files.
    :param size: bytes of all files.
    :param age_s: seconds since a file was set aside.
    """

    count: int
    size: int
    age_s: float

    def refuses(self, size: int) -> str:
        """Return the bound that one file of `size` bytes exceeds alone; empty if none."""
        if self.count == 0:
            return "count"
        if self.age_s == 0:
            return "age"
        return "size" if self.size == 0 or size > self.size else ""


def excess(
    found: Iterable[SetAside], bounds: QuarantineBounds, before: datetime
) -> list[tuple[SetAside, str]]:
    """Return the files to discard, oldest first, each with its bound: `count`, `size` or `age`.

    :param before: a file that was set aside before this time exceeds the bound `age_s`.
    """
    gone = []
    count = size = 0
    for aside in sorted(found, key=lambda each: (each.since, each.mark), reverse=True):
        bound = bounds.refuses(aside.size) or ("age" if aside.since <= before else "")
        if not bound:
            count, size = count + 1, size + aside.size
            bound = "count" if count > bounds.count else "size" if size > bounds.size else ""
        if bound:
            gone.append((aside, bound))
    return gone[::-1]


@define
class _Look:
    """The result of one look at the quarantine.

    :ivar files: number of files that were discarded.
    :ivar stuck: number of files that could not be discarded.
    """

    files: int = 0
    freed: int = 0
    stuck: int = 0
    stuck_size: int = 0
    trouble: str = ""


class Quarantine:
    """Sets files aside, and keeps their number, size and age within the bounds."""

    _log = Logger()

    def __init__(self, world: World, bounds: QuarantineBounds) -> None:
        self._clock = world.clock
        self._ages = Ages(world.clock)
        self._store = world.nars
        self._leases = world.leases
        self._bounds = bounds
        self._metrics = world.metrics
        self._looks = Coalesced(
            world.clock,
            world.tasks,
            "quarantine",
            self._look,
            longest_rest_s=LONGEST_REST_S,
        )
        world.nars.watch(self._added)

    async def put(self, key: NarKey) -> bool:
        """Set aside an object that was found wrong; delete it if there is no room for it.

        Returns False if there is no such object. Raises StorageFull or Unavailable if the object
        may still be there.
        """
        stat = await self._store.stat(key)
        if stat is None:
            return False
        bound = self._bounds.refuses(stat.size)
        why = f"cache-quarantine-max-{bound}"
        if not bound:
            try:
                if not await self._store.quarantine(key):
                    return False
            except StorageFull as error:
                bound, why = "room", str(error)
            else:
                self._added()
                return True
        if not await self._store.delete(key):
            return False
        self._metrics.quarantine_discarded(bound).inc()
        self._log.warn(
            "{key} ({size} bytes) is deleted instead of set aside: {reason}",
            key=key.file_name,
            size=stat.size,
            reason=why,
        )
        return True

    def _added(self) -> None:
        """Note that `put` has set a file aside, or the store to make room for a published one."""
        self._metrics.quarantine_set_aside.inc()
        self._looks.ask()

    async def check(self) -> None:
        """Start a background task that brings the quarantine within its bounds."""
        self._looks.ask()

    async def _look(self) -> None:
        """Count the files, and discard those beyond the bounds under the lease for that."""
        since = self._clock.seconds()
        try:
            lease = await self._leases.try_hold(LEASE)
            if lease is None:
                await self._count()
            else:
                await self._discard_under(lease)
        except NcpsError as error:
            self._log.warn("the quarantine cannot be read now: {reason}", reason=str(error))
            self._looks.rest(TROUBLE_S)
        else:
            self._looks.rest(max(REST_S, REST_SHARE * (self._clock.seconds() - since)))

    async def _count(self) -> None:
        """Count the files without discarding any; look again later if there are too many."""
        files = size = 0
        async for aside in self._store.walk_quarantine():
            files, size = files + 1, size + aside.size
        self._metrics.set_quarantine(files, size)
        if files > self._bounds.count or size > self._bounds.size:
            self._looks.ask()

    async def _discard_under(self, lease: Lease) -> None:
        look = _Look()
        kept: list[SetAside] = []
        try:
            async for aside in self._store.walk_quarantine():
                kept.append(aside)
                if len(kept) >= self._bounds.count + BATCH:
                    kept = await self._reduce(kept, lease, look)
            kept = await self._reduce(kept, lease, look)
        finally:
            await lease.release()
            self._tell(look)
        self._metrics.set_quarantine(
            len(kept) + look.stuck, sum(aside.size for aside in kept) + look.stuck_size
        )

    async def _reduce(self, found: list[SetAside], lease: Lease, look: _Look) -> list[SetAside]:
        """Discard the files beyond the bounds; return the rest.

        Raises Unavailable if the lease is lost or the store fails now.
        """
        gone = excess(found, self._bounds, self._ages.before(self._bounds.age_s))
        for aside, bound in gone:
            if lease.is_lost:
                raise Unavailable("another process may have begun")
            try:
                await self._store.discard(aside)
            except StorageFull as error:  # this file cannot be removed; others perhaps can
                look.stuck, look.stuck_size = look.stuck + 1, look.stuck_size + aside.size
                look.trouble = str(error)
            else:
                look.files, look.freed = look.files + 1, look.freed + aside.size
                self._metrics.quarantine_discarded(bound).inc()
        names = {(aside.key, aside.mark) for aside, _ in gone}
        return [aside for aside in found if (aside.key, aside.mark) not in names]

    def _tell(self, look: _Look) -> None:
        if look.files:
            self._log.info(
                "discarded {files} files ({freed} bytes) from the quarantine to keep its limits",
                files=look.files,
                freed=look.freed,
            )
        if look.stuck:
            self._log.warn(
                "cannot discard {stuck} files beyond the limits of the quarantine: {reason}",
                stuck=look.stuck,
                reason=look.trouble,
            )
