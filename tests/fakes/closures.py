"""Pins, references and removals of a `MemoryCatalog`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from attrs import evolve

from ncps.errors import Refused
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import (
    Block,
    Erased,
    EvictedNar,
    NarRecord,
    PathFacts,
    PathGraph,
    Pin,
    Pins,
    PinTotals,
    Removals,
)
from ncps.ports.pins import MAX_PINS
from ncps.ports.references import BATCH
from ncps.ports.removals import MAX_BLOCKED
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.failing import Failing

_NEVER = datetime.fromtimestamp(0, UTC)


def _order(key: NarKey) -> tuple[str, str]:
    return key.name, key.extension


class MemoryPins(Failing, Pins):
    """See `ncps.ports.Pins`; what pins hold is in the catalog."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        super().__init__()
        self.rows: dict[str, Pin] = {}
        self._catalog = catalog

    async def add(self, pin: Pin) -> bool:
        self._writing()
        there = self.rows.get(pin.digest)
        if there is None and len(self.rows) >= MAX_PINS:
            raise Refused(f"there are {MAX_PINS} pins already")
        if there is None:
            self.rows[pin.digest] = Pin(
                digest=pin.digest,
                label=pin.label,
                created_at=pin.created_at,
                expires_at=pin.expires_at,
                is_fetching=pin.is_fetching,
            )
            self._catalog.pinned.setdefault(pin.digest, set())
            return True
        self.rows[pin.digest] = evolve(
            there,
            label=pin.label,
            expires_at=pin.expires_at,
            is_fetching=there.is_fetching or pin.is_fetching,
        )
        return False

    async def remove(self, digest: str) -> bool:
        self._writing()
        self._catalog.pinned.pop(digest, None)
        return self.rows.pop(digest, None) is not None

    async def find(self, digest: str) -> Pin | None:
        self._reading()
        return self.rows.get(digest)

    async def all(self) -> list[Pin]:
        self._reading()
        return [self.rows[digest] for digest in sorted(self.rows)]

    async def hold(self, digest: str, paths: Collection[str]) -> None:
        self._writing()
        if digest in self.rows:
            self._catalog.pinned[digest] |= set(paths)

    async def look(self, pin: Pin) -> None:
        self._writing()
        if pin.digest in self.rows:
            self.rows[pin.digest] = evolve(
                self.rows[pin.digest],
                paths=pin.paths,
                missing=pin.missing,
                size=pin.size,
                looked_at=pin.looked_at,
            )

    async def due(
        self, *, missing_before: datetime, whole_before: datetime, limit: int
    ) -> list[Pin]:
        self._reading()
        found = [
            pin
            for pin in await self.all()
            if pin.looked_at is None
            or (pin.missing and pin.looked_at < missing_before)
            or pin.looked_at < whole_before
        ]
        return sorted(found, key=lambda pin: pin.looked_at or _NEVER)[:limit]

    async def expired(self, now: datetime) -> list[Pin]:
        self._reading()
        return [
            pin for pin in await self.all() if pin.expires_at is not None and pin.expires_at <= now
        ]

    async def purge(self) -> int:
        self._writing()
        gone = [digest for digest in self._catalog.pinned if digest not in self.rows]
        return sum(len(self._catalog.pinned.pop(digest)) for digest in gone)

    async def holders(self, paths: Collection[str]) -> Mapping[str, Sequence[str]]:
        self._reading()
        found = {
            path: [root for root in sorted(self.rows) if path in self._catalog.pinned[root]]
            for path in paths
        }
        return {path: roots[:10] for path, roots in found.items() if roots}

    async def totals(self) -> PinTotals:
        self._reading()
        nars = [
            nar
            for key, nar in self._catalog.records.items()
            if nar.is_stored and self._catalog.is_pinned(key)
        ]
        size = sum(nar.stored_size or 0 for nar in nars)
        missing = sum(pin.missing for pin in self.rows.values())
        return PinTotals(len(self.rows), len(nars), size, missing)


class MemoryPathGraph(Failing, PathGraph):
    """See `ncps.ports.PathGraph`."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        super().__init__()
        self._catalog = catalog

    async def among(self, digests: Collection[str]) -> Mapping[str, PathFacts]:
        self._reading()
        found = {digest: await self._catalog.narinfo(digest) for digest in digests}
        return {
            digest: PathFacts(
                base=row[0].narinfo.store_path.base,
                references=tuple(
                    sorted({p.digest for p in row[0].narinfo.references if p.digest != digest})
                ),
                nar=row[1].key,
                nar_hash=row[1].nar_hash,
                nar_size=row[1].nar_size,
                stored_size=row[1].stored_size,
            )
            for digest, row in found.items()
            if row is not None
        }

    async def after(self, digest: str, limit: int = BATCH) -> Mapping[str, PathFacts]:
        return await self.among(
            [each for each in sorted(self._catalog.entries) if each > digest][:limit]
        )


class MemoryRemovals(Failing, Removals):
    """See `ncps.ports.Removals`; blocked paths are in the catalog."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        super().__init__()
        self._catalog = catalog

    async def representations(self, key: NarKey) -> Sequence[NarRecord]:
        self._reading()
        nar = self._catalog.records.get(key)
        if nar is None or nar.nar_hash is None:
            return [] if nar is None else [nar]
        alike = [n for n in self._catalog.records.values() if n.nar_hash == nar.nar_hash]
        return sorted(alike, key=lambda each: _order(each.key))

    def _evicted(self, key: NarKey) -> EvictedNar:
        return EvictedNar(self._catalog.records[key], tuple(sorted(self._catalog.digests_of(key))))

    async def discard(self, keys: Collection[NarKey]) -> list[EvictedNar]:
        self._writing()
        found = []
        for key in sorted(set(keys), key=_order):
            nar = self._catalog.records.get(key)
            if nar is not None and nar.is_stored:
                found.append(self._evicted(key))
                await self._catalog.mark_missing(key)
        return found

    async def _keys_of(self, digests: Collection[str]) -> list[NarKey]:
        rows = [await self._catalog.narinfo(digest) for digest in digests]
        return sorted({row[1].key for row in rows if row is not None}, key=_order)

    async def erase(self, digests: Collection[str], *, keeps_nars: bool = False) -> Erased:
        self._writing()
        keys = await self._keys_of(digests)
        records = self._catalog.records
        families = {records[key].family for key in keys}
        if not keeps_nars:
            keys = sorted((k for k, n in records.items() if n.family in families), key=_order)
        left = {
            records[key].family
            for key in keys
            if not set(self._catalog.digests_of(key)) <= set(digests)
        }
        gone: list[str] = []
        nars = []
        for key in keys:
            its = self._evicted(key)
            if its.nar.family not in left and not keeps_nars:
                nars.append(its)
                gone += its.digests
                await self._catalog.forget_nar(key)
                continue
            for digest in set(its.digests) & set(digests):
                gone.append(digest)
                await self._catalog.forget_narinfo(digest)
        return Erased(digests=tuple(sorted(gone)), nars=tuple(nars), keys=tuple(keys))

    async def block(self, blocks: Sequence[Block]) -> Erased:
        self._writing()
        keys: set[NarKey] = set()
        for block in blocks:
            hashes = set(block.hashes)
            for key in await self._keys_of([block.digest]):
                keys.add(key)
                for nar in await self.representations(key):
                    keys.add(nar.key)
                    file_hash = nar.file_hash if nar.was_stored else None
                    hashes |= {each for each in (nar.nar_hash, file_hash) if each is not None}
            keys |= {n.key for n in self._catalog.records.values() if n.nar_hash in hashes}
            there = self._catalog.blocks.get(block.digest)
            if there is None and len(self._catalog.blocks) >= MAX_BLOCKED:
                raise Refused(f"{MAX_BLOCKED} paths are blocked already")
            hashes |= set() if there is None else set(there.hashes)
            self._catalog.blocks[block.digest] = evolve(
                there or block, hashes=tuple(sorted(hashes, key=str))
            )
        ordered = sorted(keys, key=_order)
        nars = tuple(self._evicted(key) for key in ordered)
        for key in ordered:
            await self._catalog.forget_nar(key)
        digests = tuple(sorted(digest for nar in nars for digest in nar.digests))
        return Erased(digests=digests, nars=nars, keys=tuple(ordered))

    async def unblock(self, digest: str) -> bool:
        self._writing()
        return self._catalog.blocks.pop(digest, None) is not None

    async def blocked(self) -> list[Block]:
        self._reading()
        return [self._catalog.blocks[digest] for digest in sorted(self._catalog.blocks)]

    async def is_blocked(self, digest: str) -> bool:
        self._reading()
        return digest in self._catalog.blocks

    async def is_blocked_file(self, file_hash: Hash) -> bool:
        self._reading()
        return any(file_hash in block.hashes for block in self._catalog.blocks.values())
