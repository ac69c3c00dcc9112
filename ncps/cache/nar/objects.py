"""Objects: the stored bytes of NARs as they are removed, each under the leases of its NARs.

Mostly an object belongs to the NAR of its key. Trees taken over from the Go program keep an
uncompressed NAR `X.nar` as `X.nar.zst`: there the object belongs to a NAR of another name, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ncps.cache.cluster import lease_of
from ncps.cache.nar.served import stored_key
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import Lease, Leases, NarRecord


def owners(key: NarKey) -> tuple[NarKey, ...]:
    """The NARs whose bytes may be the object of this key."""
    return (key,) if not key.extension else (key, NarKey(key.name, ""))


class Holding:
    """Leases of downloads, held to keep everybody from fetching or taking over NARs meanwhile."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held: dict[NarKey, Lease] = {}

    async def take(self, nar: NarRecord) -> bool:
        """Hold what keeps the bytes of a NAR alone; False if somebody is at them. Unavailable."""
        return await self.take_object(nar.key) and await self.take_object(stored_key(nar))

    async def take_object(self, key: NarKey) -> bool:
        """Likewise for an object, whosever it is.

        Who takes it over for a NAR of another name holds the lease of the object's name, too.
        """
        if key not in self._held:
            lease = await self._leases.try_hold(lease_of(key))
            if lease is None:
                return False
            self._held[key] = lease
        return True

    async def release(self) -> None:
        """Give all of them back."""
        while self._held:
            await self._held.popitem()[1].release()


class Objects:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._catalog = world.catalog
        self._store = world.nars
        self._leases = world.leases

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Holding]:
        """Hold leases that `Holding.take` takes, until the end of the block."""
        held = Holding(self._leases)
        try:
            yield held
        finally:
            await held.release()

    async def is_owned(self, key: NarKey) -> bool:
        """Whether a record says that this object is its bytes. Unavailable."""
        for owner in owners(key):
            nar = await self._catalog.nar(owner)
            if nar is not None and nar.is_stored and stored_key(nar) == key:
                return True
        return False

    async def remove(self, nar: NarRecord) -> bool:
        """Remove the bytes of a NAR whose record says no more that it is stored. Unavailable.

        False if they were gone already, or are those of another NAR, too.
        """
        key = stored_key(nar)
        return not await self.is_owned(key) and await self._store.delete(key)

    async def is_absent(self, nar: NarRecord) -> bool:
        """Whether the bytes are surely not there. Unavailable."""
        return await self._store.stat(stored_key(nar)) is None
