"""Kept extras: finds and adds extras in the store, and bounds their number and size.

An uploaded extra is served instead of a fetched one, and is never removed. ncps can fetch other
extras again, or make them again: it removes the oldest of these when there are too many.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from attrs import frozen
from twisted.logger import Logger

from ncps.aio.body import PassedBody
from ncps.cache.answers import Outcome
from ncps.cache.extras.answers import ServedExtra
from ncps.cache.world import World
from ncps.errors import Conflict, NcpsError, NotFound, StorageFull, Unavailable
from ncps.ports import EXTRA_KINDS, ExtraKey, ExtraKind, ExtraStat, ExtraStore

MAX_COUNT: Final = 100_000
"""Fetched extras that are kept, at most; the same bound for uploaded ones."""

EXTRAS_S: Final = 3600.0
"""Seconds between two looks at all extras."""

REST_S: Final = 60.0
"""Seconds after a look in which a new extra causes no other look."""

LOW_MARK: Final = 0.8
"""Removal of fetched extras stops at this fraction of the limit."""

PIECE: Final = 64 * 1024
"""Bytes in one piece of an extra in memory."""

TRIM: Final = "extras"
"""Name of the lease of the process that removes extras."""


@frozen(kw_only=True)
class ExtraBounds:
    """The limits of the kept extras, in bytes.

    :param object_size: bytes of one extra.
    :param fetched_size: bytes of all extras that were fetched or made here; 0 keeps none.
    :param uploaded_size: bytes of all uploaded extras.
    """

    object_size: int
    fetched_size: int
    uploaded_size: int


class KeptExtras:
    """The extras in the store."""

    _log = Logger()

    def __init__(self, world: World, store: ExtraStore, bounds: ExtraBounds) -> None:
        self.bounds = bounds
        self._clock = world.clock
        self._tasks = world.tasks
        self._leases = world.leases
        self._store = store
        self._metrics = world.metrics
        self._fetched = 0
        self._uploaded = 0
        self._count = 0  # uploaded extras
        self._is_looking = False
        self._looked_at = float("-inf")

    async def open(self, kind: ExtraKind, name: str) -> ServedExtra | None:
        """Open an extra; None if it is not kept. Raises Unavailable if the store cannot tell."""
        for is_uploaded in (True, False):
            with suppress(NotFound):
                body = await self._store.open(ExtraKey(kind, name, is_uploaded))
                if body.size is None:
                    body.close()
                    raise Unavailable("the store does not say the size of an object")
                return ServedExtra(body=body, size=body.size, outcome=Outcome.HIT)
        return None

    async def read(self, key: ExtraKey) -> bytes | None:
        """Return the bytes of a small extra; None if it is not kept. Raises as `open`."""
        return await self._store.read(key)

    async def keep(self, kind: ExtraKind, name: str, data: bytes) -> None:
        """Keep an extra that was fetched or made here, if there is room. Raises nothing."""
        if not self._fits(len(data)):
            return
        try:
            await self._store.put(ExtraKey(kind, name), data)
        except (StorageFull, Unavailable) as error:
            self._log.warn(
                "{kind} {name} is not kept: {reason}", kind=kind, name=name, reason=str(error)
            )
            return
        self._fetched += len(data)
        is_rested = self._clock.seconds() - self._looked_at > REST_S
        if self._fetched > self.bounds.fetched_size and is_rested:
            self._tasks.start("removal of extras", self.check())

    def _fits(self, size: int) -> bool:
        return size <= min(self.bounds.object_size, self.bounds.fetched_size)

    async def drop(self, key: ExtraKey) -> None:
        """Remove a useless extra. Raises nothing."""
        with suppress(Unavailable, StorageFull):
            await self._store.delete(key)

    async def add(self, kind: ExtraKind, name: str, data: bytes, *, replaces: bytes = b"") -> bool:
        """Keep an uploaded extra; return whether it is new. It is durable on return.

        Raises Conflict if a client has uploaded another one before, StorageFull if there is no
        room, Unavailable if the store fails now.

        :param replaces: the bytes of an earlier extra that may be replaced.
        """
        key = ExtraKey(kind, name, is_uploaded=True)
        async with self._leases.hold(f"extra:{kind}:{name}"):
            there = await self._store.read(key)
            if there == data:
                return False
            if there and there != replaces:  # an empty extra may be replaced
                raise Conflict(f"another {kind} of {name} was uploaded before")
            self._check_room(len(data))
            await self._store.put(key, data)
            self._uploaded += len(data)
            self._count += 1
        return True

    def _check_room(self, size: int) -> None:
        if self._uploaded + size > self.bounds.uploaded_size or self._count >= MAX_COUNT:
            self._metrics.limit_reached("cache-extra-max-uploaded-size").inc()
            raise StorageFull(
                f"the {self._count} uploaded logs and links have {self._uploaded} bytes: no more"
                f" than {MAX_COUNT}, and {self.bounds.uploaded_size} bytes"
                " (--cache-extra-max-uploaded-size), are kept"
            )

    async def check(self) -> None:
        """Count all extras; remove the oldest fetched ones if they exceed the limits.

        Only one process removes at a time. Raises nothing: it logs errors, and the other extras
        stay.
        """
        if self._is_looking:
            return
        self._is_looking = True
        try:
            await self._look()
        except NcpsError as error:
            self._log.warn("extras cannot be counted now: {reason}", reason=str(error))
        finally:
            self._is_looking = False
            self._looked_at = self._clock.seconds()

    async def _look(self) -> None:
        uploaded = count = 0
        fetched: list[ExtraStat] = []
        for kind in EXTRA_KINDS:
            async for stat in self._store.walk(kind, is_uploaded=True):
                uploaded += stat.size
                count += 1
            fetched += [stat async for stat in self._store.walk(kind, is_uploaded=False)]
        self._uploaded, self._count = uploaded, count
        self._fetched = sum(stat.size for stat in fetched)
        if self._fetched > self.bounds.fetched_size or len(fetched) > MAX_COUNT:
            await self._trim(fetched)
        self._metrics.extra_size("fetched").set(self._fetched)
        self._metrics.extra_size("uploaded").set(self._uploaded)

    async def _trim(self, fetched: list[ExtraStat]) -> None:
        lease = await self._leases.try_hold(TRIM)
        if lease is None:
            return
        size, count = LOW_MARK * self.bounds.fetched_size, LOW_MARK * MAX_COUNT
        left = len(fetched)
        try:
            for stat in sorted(fetched, key=lambda stat: stat.modified):
                if (self._fetched <= size and left <= count) or lease.is_lost:
                    break
                await self._store.delete(stat.key)
                self._fetched -= stat.size
                left -= 1
                self._metrics.extras_removed.inc()
        finally:
            await lease.release()


def held(data: bytes, outcome: Outcome, upstream: str = "") -> ServedExtra:
    """Return an extra whose bytes are in memory; several readers may share them."""
    body = PassedBody(_pieces(data), lambda: None, total=len(data))
    return ServedExtra(body=body, size=len(data), outcome=outcome, upstream=upstream)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
