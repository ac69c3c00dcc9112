"""SqlCatalog: the `Catalog` and `Inventory` ports on a database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from ncps.database import accounts, blocks, clock, idle, narinfos, nars, wrong
from ncps.database.narinfos import touch as touch_narinfos
from ncps.database.nars import touch as touch_nars
from ncps.database.pool import Database
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, Forgotten, IdleNar, Inventory, NarInfoEntry, NarRecord, Totals

K = TypeVar("K")

TOUCH_BATCH: Final = 250
"""Times of last use per transaction."""

AMONG_BATCH: Final = 100
"""Narinfos per transaction of `narinfos_among`.

This is below the engines' limits of parameters, and the texts need little memory.
"""


class SqlCatalog(Inventory):
    """A catalog in SQL; see `ncps.ports.Catalog` and `ncps.ports.Inventory`.

    A narinfo and the record of its NAR are one row of one join. To read both takes 70 to 100
    microseconds on the reactor's thread: 17 in SQLite, the rest for the values. A caller that asks
    often keeps the parsed values.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        try:
            return await self._database.look_up(narinfos.BY_DIGEST, digest)
        except narinfos.Long:
            return await self._database.read(narinfos.find, digest)

    async def narinfos_among(
        self, digests: Collection[str]
    ) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
        found: dict[str, tuple[NarInfoEntry, NarRecord] | None] = {}
        wanted = iter(dict.fromkeys(digests))
        while batch := tuple(islice(wanted, AMONG_BATCH)):
            found |= await self._database.read(narinfos.among, batch)
        return found

    async def nar(self, key: NarKey) -> NarRecord | None:
        return await self._database.look_up(nars.BY_KEY, key)

    async def stored_file(self, file_hash: Hash, extension: str) -> NarRecord | None:
        return await self._database.point(nars.stored_file, file_hash, extension)

    async def restate(self, nar: NarRecord) -> None:
        await self._database.write(nars.restate, nar)

    async def note_wrong(self, nar_hash: Hash, file_hash: Hash, at: datetime) -> None:
        await self._database.write(wrong.note, nar_hash, file_hash, at)

    async def is_wrong(self, nar_hash: Hash, file_hash: Hash, now: datetime) -> bool:
        return await self._database.point(wrong.is_noted, nar_hash, file_hash, now)

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        return await self._database.read(narinfos.of_nar, key)

    async def narinfos_alike(self, key: NarKey) -> list[NarInfoEntry]:
        return await self._database.read(narinfos.alike, key)

    async def add_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, *, is_settled: bool = False
    ) -> None:
        write = self._database.write_settled if is_settled else self._database.write
        await write(_add_narinfo, entry, nar)

    async def add_new_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, other: NarKey | None = None
    ) -> bool:
        return await self._database.write(_add_new_narinfo, entry, nar, other)

    async def mark_stored(
        self, nar: NarRecord, fence: int = 0, *, is_settled: bool = False
    ) -> list[NarInfoEntry]:
        write = self._database.write_settled if is_settled else self._database.write
        return await write(_mark_stored, nar, fence)

    async def mark_missing(self, key: NarKey) -> None:
        await self._database.write(_mark_missing, key)

    async def mark_verified(self, nar: NarRecord) -> bool:
        return await self._database.write(nars.mark_verified, nar)

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        return await self._database.read(nars.unverified, limit, tuple(compressions))

    async def forget_narinfo(self, digest: str) -> bool:
        return await self._database.write(narinfos.forget, digest)

    async def forget_nar(self, key: NarKey) -> bool:
        return await self._database.write(_forget_nar, key)

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        # Each batch is one transaction, so other transactions wait for one batch only.
        for batch in _batches(narinfos):
            await self._database.write(touch_narinfos, batch)
        for nar_batch in _batches(nars):
            await self._database.write(touch_nars, nar_batch)

    async def settle(self) -> None:
        await self._database.settle()

    async def totals(self) -> Totals:
        return await self._database.read(_totals)

    async def time(self) -> datetime:
        return await self._database.point(clock.read)

    async def stored_bytes(self) -> int:
        return (await self._database.point(accounts.read)).size

    async def recount(self) -> int:
        return (await self._database.write(accounts.recount)).size

    async def created_at(self) -> datetime:
        return await self._database.read(idle.created_at)

    async def idle(
        self, before: datetime, limit: int, *, only_copies: bool = False
    ) -> list[IdleNar]:
        return await self._database.read(idle.find, before, limit, only_copies=only_copies)

    async def only_copies(self) -> int:
        return await self._database.read(idle.only_copies)

    async def abandoned(self, before: datetime, limit: int) -> list[IdleNar]:
        return await self._database.read(idle.abandoned, before, limit)

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        evicted = await self._database.write(_evict, idle)
        if evicted:
            await self._database.settle()
        return evicted

    async def forget_unused(self, before: datetime, now: datetime, limit: int) -> Forgotten:
        return await self._database.write(idle.forget, before, now, limit)


def _add_narinfo(txn: Any, entry: NarInfoEntry, nar: NarRecord) -> None:
    blocks.refuse_narinfo(txn, entry, nar)
    written = nars.announce(txn, nar)
    narinfos.put(txn, entry, written.row_id)
    accounts.add(txn, written.change)


def _add_new_narinfo(txn: Any, entry: NarInfoEntry, nar: NarRecord, other: NarKey | None) -> bool:
    keys = (nar.key,) if other is None else (nar.key, other)
    if narinfos.is_known(txn, entry.digest) or nars.are_known(txn, keys):
        return False
    _add_narinfo(txn, entry, nar)
    return True


def _mark_stored(txn: Any, nar: NarRecord, fence: int) -> list[NarInfoEntry]:
    blocks.refuse_nar(txn, nar)
    written = nars.mark_stored(txn, nar, fence)
    entries = narinfos.fill_file_facts(txn, nar, written.row_id)
    accounts.add(txn, written.change)
    return entries


def _mark_missing(txn: Any, key: NarKey) -> None:
    accounts.add(txn, nars.mark_missing(txn, key))


def _forget_nar(txn: Any, key: NarKey) -> bool:
    was_there, change = nars.forget(txn, key)
    accounts.add(txn, change)
    return was_there


def _evict(txn: Any, victims: Sequence[IdleNar]) -> list[EvictedNar]:
    evicted, change = idle.evict(txn, victims)
    accounts.add(txn, change)
    return evicted


def _batches(uses: Mapping[K, datetime]) -> Iterator[dict[K, datetime]]:
    items = iter(uses.items())
    while batch := dict(islice(items, TOUCH_BATCH)):
        yield batch


def _totals(txn: Any) -> Totals:
    stored = accounts.read(txn)
    return Totals(narinfos.count(txn), stored.nars, stored.size)
