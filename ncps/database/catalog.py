"""SqlCatalog: the `Catalog` port on a database, each method one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ncps.database import narinfos, nars
from ncps.database.pool import Database
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog, NarInfoEntry, NarRecord, Totals


class SqlCatalog(Catalog):
    """See `ncps.ports.Catalog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        return self._database.point(narinfos.find, digest)

    async def nar(self, key: NarKey) -> NarRecord | None:
        found = self._database.point(nars.find, key)
        return None if found is None else found[1]

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        return self._database.point(narinfos.of_nar, key)

    async def add_narinfo(self, entry: NarInfoEntry, nar: NarRecord) -> None:
        await self._database.write(_add_narinfo, entry, nar)

    async def mark_stored(self, nar: NarRecord) -> None:
        await self._database.write(_mark_stored, nar)

    async def mark_missing(self, key: NarKey) -> None:
        await self._database.write(nars.mark_missing, key)

    async def mark_verified(self, key: NarKey, at: datetime) -> None:
        await self._database.write(nars.mark_verified, key, at)

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        return await self._database.read(nars.unverified, limit, tuple(compressions))

    async def forget_narinfo(self, digest: str) -> bool:
        return await self._database.write(narinfos.forget, digest)

    async def forget_nar(self, key: NarKey) -> bool:
        return await self._database.write(nars.forget, key)

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        await self._database.write(_touch, narinfos, nars)

    async def totals(self) -> Totals:
        return await self._database.read(_totals)


def _add_narinfo(txn: Any, entry: NarInfoEntry, nar: NarRecord) -> None:
    narinfos.put(txn, entry, nars.announce(txn, nar))


def _mark_stored(txn: Any, nar: NarRecord) -> None:
    narinfos.fill_file_facts(txn, nar, nars.mark_stored(txn, nar))


def _touch(
    txn: Any, narinfo_uses: Mapping[str, datetime], nar_uses: Mapping[NarKey, datetime]
) -> None:
    narinfos.touch(txn, narinfo_uses)
    nars.touch(txn, nar_uses)


def _totals(txn: Any) -> Totals:
    stored, size = nars.count_stored(txn)
    return Totals(narinfos.count(txn), stored, size)
