"""MemoryCatalog: a catalog of two dictionaries, whose counter is a sum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from attrs import evolve

from ncps.errors import Conflict, Malformed
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import (
    Block,
    Blocked,
    EvictedNar,
    Forgotten,
    IdleNar,
    Inventory,
    NarInfoEntry,
    NarRecord,
    Totals,
)
from ncps.ports.catalog import LONGEST_AMONG, NEVER_ASKED_FOR, WRONG_ENTRIES, WRONG_S
from tests.fakes.failing import Failing

_ORIGIN = ("upstream", "origin_url")
_FACTS = ("compression", "file_size", "file_hash", "nar_size", "nar_hash")
_COMPUTED = (
    "compression",
    "encoding",
    "file_size",
    "file_hash",
    "nar_size",
    "nar_hash",
    "stored_tag",
    "verified_at",
)

_NEVER = datetime.fromtimestamp(0, UTC)


class MemoryCatalog(Failing, Inventory):
    """See `ncps.ports.Catalog` and `ncps.ports.Inventory`.

    :ivar pinned: the paths that each pin holds, by its root; see `MemoryPins`.
    :ivar blocks: blocked paths; see `MemoryRemovals`.
    :ivar off: the result of the next recount.
    :ivar clock_ahead_s: seconds by which its clock is ahead of this machine's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, NarInfoEntry] = {}
        self.records: dict[NarKey, NarRecord] = {}
        self.wrong: dict[tuple[Hash, Hash], datetime] = {}
        self.made_at = datetime(2020, 1, 1, tzinfo=UTC)
        self.off = 0
        self.clock_ahead_s = 0.0
        self._key_of: dict[str, NarKey] = {}
        self._fences: dict[NarKey, int] = {}
        self.pinned: dict[str, set[str]] = {}
        self.blocks: dict[str, Block] = {}

    def digests_of(self, key: NarKey) -> list[str]:
        """Return the digests of a NAR's narinfos."""
        return [digest for digest, its in self._key_of.items() if its == key]

    def move(self, key: NarKey, to: NarKey, change: Callable[[NarInfoEntry], NarInfoEntry]) -> None:
        """Change the narinfos of a NAR, and make them those of another one."""
        for digest in self.digests_of(key):
            self.entries[digest] = change(self.entries[digest])
            self._key_of[digest] = to

    def is_pinned(self, key: NarKey) -> bool:
        """Whether a pin holds a path of this NAR."""
        held = set().union(*self.pinned.values())
        return not held.isdisjoint(self.digests_of(key))

    async def narinfo(self, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
        self._reading()
        entry = self.entries.get(digest)
        return None if entry is None else (entry, self.records[self._key_of[digest]])

    async def narinfos_among(
        self, digests: Collection[str]
    ) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
        self._reading()
        found: dict[str, tuple[NarInfoEntry, NarRecord] | None] = {}
        for digest in digests:
            entry = self.entries.get(digest)
            if entry is not None:
                is_long = len(entry.narinfo.render()) > LONGEST_AMONG
                nar = self.records[self._key_of[digest]]
                found[digest] = None if is_long else (entry, nar)
        return found

    async def nar(self, key: NarKey) -> NarRecord | None:
        self._reading()
        return self.records.get(key)

    async def stored_file(self, file_hash: Hash, extension: str) -> NarRecord | None:
        self._reading()
        for nar in self.records.values():
            if nar.is_stored and nar.file_hash == file_hash and nar.key.extension == extension:
                return nar
        return None

    async def restate(self, nar: NarRecord) -> None:
        self._writing()
        there = self.records.get(nar.key)
        if there is not None and not there.was_stored:
            names = ("file_size", "file_hash", "upstream", "origin_url")
            self.records[nar.key] = evolve(there, **{name: getattr(nar, name) for name in names})

    async def note_wrong(self, nar_hash: Hash, file_hash: Hash, at: datetime) -> None:
        self._writing()
        self.wrong.pop((nar_hash, file_hash), None)
        self.wrong[nar_hash, file_hash] = at
        while len(self.wrong) > WRONG_ENTRIES:
            del self.wrong[next(iter(self.wrong))]

    async def is_wrong(self, nar_hash: Hash, file_hash: Hash, now: datetime) -> bool:
        self._reading()
        at = self.wrong.get((nar_hash, file_hash), _NEVER)
        return at >= now - timedelta(seconds=WRONG_S)

    async def narinfos_of(self, key: NarKey) -> list[NarInfoEntry]:
        self._reading()
        return [self.entries[digest] for digest in self.digests_of(key)]

    async def narinfos_alike(self, key: NarKey) -> list[NarInfoEntry]:
        self._reading()
        nar = self.records.get(key)
        return [
            self.entries[digest]
            for digest, its in self._key_of.items()
            if nar is not None and self.records[its].nar_hash == nar.nar_hash
        ]

    async def add_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, *, is_settled: bool = False
    ) -> None:
        self._writing()
        if entry.digest in self.blocks:
            raise Blocked(f"{entry.digest} is blocked")
        refuse_blocked(self.blocks.values(), {entry.narinfo.nar_hash, *hashes_of(nar)})
        has_twin = any(
            n.is_stored and n.made_from == nar.key.file_name for n in self.records.values()
        )
        there = self.records.get(nar.key)
        self.records[nar.key] = _announced(there, nar)
        if there is not None and has_twin:
            self.records[nar.key] = evolve(self.records[nar.key], recompressed_at=None)
        old = self.entries.get(entry.digest)
        if old is not None:
            entry = evolve(entry, last_used_at=old.last_used_at)
        self.entries[entry.digest] = entry
        self._key_of[entry.digest] = nar.key

    async def add_new_narinfo(
        self, entry: NarInfoEntry, nar: NarRecord, other: NarKey | None = None
    ) -> bool:
        self._writing()
        if entry.digest in self.entries or not self.records.keys().isdisjoint({nar.key, other}):
            return False
        await self.add_narinfo(entry, nar)
        return True

    async def mark_stored(
        self, nar: NarRecord, fence: int = 0, *, is_settled: bool = False
    ) -> list[NarInfoEntry]:
        self._writing()
        refuse_blocked(self.blocks.values(), hashes_of(nar))
        last = self._fences.get(nar.key, 0)
        if 0 < fence < last:
            raise Conflict(f"stored under lease {last}, after {fence}")
        self._fences[nar.key] = max(fence, last)
        old = self.records.get(nar.key)
        is_guess = nar.last_used_at == NEVER_ASKED_FOR
        if old is not None and (
            nar.last_used_at is None or (is_guess and old.last_used_at is not None)
        ):
            nar = evolve(nar, last_used_at=old.last_used_at)
        self.records[nar.key] = nar
        for digest in self.digests_of(nar.key):
            narinfo = self.entries[digest].narinfo
            if narinfo.compression != "none":
                narinfo = evolve(
                    narinfo,
                    file_hash=nar.file_hash or narinfo.file_hash,
                    file_size=nar.file_size or narinfo.file_size,
                )
            self.entries[digest] = evolve(self.entries[digest], narinfo=narinfo)
        return [self.entries[digest] for digest in self.digests_of(nar.key)]

    async def mark_missing(self, key: NarKey) -> None:
        self._writing()
        if key in self.records:
            self.records[key] = self.records[key].without_bytes()

    async def mark_verified(self, nar: NarRecord) -> bool:
        self._writing()
        there = self.records.get(nar.key)
        if there is None or not nar.is_stored or there.stored_at != nar.stored_at:
            return False
        self.records[nar.key] = evolve(there, **{name: getattr(nar, name) for name in _COMPUTED})
        return True

    async def unverified(self, limit: int, compressions: Collection[str]) -> list[NarRecord]:
        self._reading()
        waiting = [
            nar
            for nar in self.records.values()
            if compressions and nar.stored_at is not None and nar.verified_at is None
            if (nar.uploaded_at is None if nar.nar_hash is None else nar.encoding in compressions)
        ]
        return sorted(waiting, key=lambda nar: nar.stored_at or _NEVER)[:limit]

    async def forget_narinfo(self, digest: str) -> bool:
        self._writing()
        self._key_of.pop(digest, None)
        return self.entries.pop(digest, None) is not None

    async def forget_nar(self, key: NarKey) -> bool:
        self._writing()
        for digest in self.digests_of(key):
            del self.entries[digest], self._key_of[digest]
        self._fences.pop(key, None)
        return self.records.pop(key, None) is not None

    async def touch(
        self, narinfos: Mapping[str, datetime], nars: Mapping[NarKey, datetime]
    ) -> None:
        self._writing()
        for digest, at in narinfos.items():
            entry = self.entries.get(digest)
            if entry is not None and at > (entry.last_used_at or _NEVER):
                self.entries[digest] = evolve(entry, last_used_at=at)
        for key, at in nars.items():
            nar = self.records.get(key)
            if nar is not None and at > (nar.last_used_at or _NEVER):
                self.records[key] = evolve(nar, last_used_at=at)

    async def totals(self) -> Totals:
        self._reading()
        sizes = [nar.stored_size or 0 for nar in self.records.values() if nar.is_stored]
        return Totals(len(self.entries), len(sizes), sum(sizes))

    async def time(self) -> datetime:
        self._reading()
        return datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s)

    async def stored_bytes(self) -> int:
        return (await self.totals()).bytes_stored

    async def recount(self) -> int:
        self._writing()
        off, self.off = self.off, 0
        return off

    async def created_at(self) -> datetime:
        self._reading()
        return self.made_at

    def _used_at(self, nar: NarRecord) -> datetime:
        """Last use of a NAR and its narinfos; storing counts if none of the NAR is known."""
        used = [self.entries[digest].last_used_at for digest in self.digests_of(nar.key)]
        times = [nar.stored_at if nar.last_used_at is None else nar.last_used_at, *used]
        return max((at for at in times if at is not None), default=_NEVER)

    async def settle(self) -> None:
        self._writing()

    async def only_copies(self) -> int:
        self._reading()
        return sum(
            nar.stored_size or 0
            for nar in self.records.values()
            if nar.is_stored and nar.is_only_copy
        )

    async def abandoned(self, before: datetime, limit: int) -> list[IdleNar]:
        self._reading()
        found = [
            IdleNar(nar, max(nar.stored_at, self._used_at(nar)))
            for key, nar in self.records.items()
            if nar.stored_at is not None and not self.digests_of(key)
            if nar.uploaded_at is not None
            and max(nar.uploaded_at, nar.stored_at, self._used_at(nar)) < before
        ]
        return sorted(found, key=lambda idle: idle.nar.uploaded_at or _NEVER)[:limit]

    async def idle(
        self, before: datetime, limit: int, *, only_copies: bool = False
    ) -> list[IdleNar]:
        self._reading()
        found = [
            IdleNar(nar, self._used_at(nar))
            for key, nar in self.records.items()
            if nar.is_stored and nar.is_only_copy == only_copies and not self.is_pinned(key)
        ]
        found.sort(key=lambda idle: idle.used_at)
        return [
            idle
            for idle in found
            if idle.used_at < before and (idle.nar.stored_at or _NEVER) < before
        ][:limit]

    async def evict(self, idle: Sequence[IdleNar]) -> list[EvictedNar]:
        self._writing()
        evicted = []
        for victim in idle:
            key = victim.nar.key
            nar = self.records.get(key)
            if nar is None or nar.stored_at != victim.nar.stored_at:
                continue
            if not nar.is_stored or self._used_at(nar) > victim.used_at or self.is_pinned(key):
                continue
            await self.mark_missing(key)
            if nar.last_used_at is None:
                self.records[key] = evolve(self.records[key], last_used_at=victim.used_at)
            evicted.append(EvictedNar(victim.nar, tuple(sorted(self.digests_of(key)))))
        return evicted

    async def forget_unused(self, before: datetime, now: datetime, limit: int) -> Forgotten:
        self._writing()
        forgotten = []
        for key, nar in list(self.records.items()):
            entries = [self.entries[digest] for digest in self.digests_of(key)]
            times = [entry.fetched_at for entry in entries] + [self._used_at(nar)]
            if nar.is_stored or max(times) >= before or limit <= 0 or self.is_pinned(key):
                continue
            limit -= 1
            if nar.last_used_at is None and not entries:
                self.records[key] = evolve(nar, last_used_at=now)
            else:
                await self.forget_nar(key)
                forgotten.append(key)
        return Forgotten(tuple(forgotten), limit > 0)


def hashes_of(nar: NarRecord) -> set[Hash]:
    """Return the hashes in a NAR's record, and the one that its name spells."""
    found = {each for each in (nar.nar_hash, nar.file_hash) if each is not None}
    with suppress(Malformed):
        found.add(nar.key.as_hash())
    return found


def refuse_blocked(blocks: Iterable[Block], hashes: set[Hash]) -> None:
    """Raise Blocked if one of the hashes is blocked."""
    for block in blocks:
        if not hashes.isdisjoint(block.hashes):
            raise Blocked(f"the NAR of {block.digest} is blocked")


def _announced(there: NarRecord | None, told: NarRecord) -> NarRecord:
    """Return the record as a narinfo's word about its NAR changes it."""
    if there is None:
        return told
    if there.is_stored:
        is_same = told.nar_hash is not None and told.nar_hash in {there.nar_hash, there.file_hash}
        facts = _FACTS if is_same else ()
        changes = {name: getattr(told, name) for name in facts if not getattr(there, name)}
        if not there.upstream and not there.origin_url:
            changes |= {name: getattr(told, name) for name in _ORIGIN}
        return evolve(there, **changes)
    names = _ORIGIN if there.was_stored else _FACTS + _ORIGIN
    return evolve(there, **{name: getattr(told, name) for name in names})
