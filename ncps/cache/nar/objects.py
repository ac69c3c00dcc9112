"""Objects: removes the stored bytes of NARs, each object under the leases of its NARs.

Most objects belong to the NAR of their key. Trees of the Go program keep an uncompressed NAR
`X.nar` as `X.nar.zst`: there the object belongs to a NAR of another name, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ncps.cache.cluster import lease_of
from ncps.cache.nar.stored import stored_key
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import Lease, Leases, NarRecord


def owners(key: NarKey) -> tuple[NarKey, ...]:
    """Return the keys of the NARs whose bytes may be the object of this key."""
    return (key,) if not key.extension else (key, NarKey(key.name, ""))


class Holding:
    """Leases of downloads; while they are held, no other process fetches or adopts the NARs."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held: dict[NarKey, Lease] = {}

    async def take(self, nar: NarRecord) -> bool:
        """Take the leases of a NAR and of its object; return False if another process has one.

        Raises Unavailable if the lease backend cannot be asked.
        """
        return await self.take_object(nar.key) and await self.take_object(stored_key(nar))

    async def take_object(self, key: NarKey) -> bool:
        """Take the lease of an object; else as `take`.

        A process that adopts the object for a NAR of another name needs this lease, too.
        """
        if key not in self._held:
            lease = await self._leases.try_hold(lease_of(key))
            if lease is None:
                return False
            self._held[key] = lease
        return True

    async def release(self) -> None:
        """Release all leases."""
        while self._held:
            await self._held.popitem()[1].release()


class Objects:
    """Finds out whether an object belongs to a NAR, and removes objects that belong to none."""

    def __init__(self, world: World) -> None:
        self._catalog = world.catalog
        self._store = world.nars
        self._leases = world.leases

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Holding]:
        """Yield a `Holding`; release its leases at the end of the block."""
        held = Holding(self._leases)
        try:
            yield held
        finally:
            await held.release()

    async def is_owned(self, key: NarKey) -> bool:
        """Return whether this object has the bytes of a row.

        Raises Unavailable if the database is away.
        """
        for owner in owners(key):
            nar = await self._catalog.nar(owner)
            if nar is not None and nar.is_stored and stored_key(nar) == key:
                return True
        return False

    async def remove(self, nar: NarRecord) -> bool:
        """Remove the bytes of a NAR whose row no longer says that it is stored.

        Returns False if they were gone already, or belong to another NAR, too. Raises Unavailable
        if the database is away, or the store cannot remove them.
        """
        key = stored_key(nar)
        return not await self.is_owned(key) and await self._store.delete(key)

    async def is_absent(self, nar: NarRecord) -> bool:
        """Return whether the bytes are absent. Raises Unavailable if the store cannot tell."""
        return await self._store.stat(stored_key(nar)) is None
