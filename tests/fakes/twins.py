"""Twins of a `MemoryCatalog`, and a transcoder that works at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, evolve

from ncps import codec
from ncps.codec import zstd
from ncps.errors import Corrupt, NotFound
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import Body, IdleNar, NarInfoEntry, NarRecord, Order, Transcoded, Transcoder, Twins
from ncps.ports.twins import TwinCandidates, last_shown, renamed
from tests.fakes.catalog import MemoryCatalog, hashes_of, refuse_blocked
from tests.fakes.failing import Failing


class MemoryTwins(Failing, Twins):
    """See `ncps.ports.Twins`; what they are is in the catalog."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        super().__init__()
        self._catalog = catalog

    def _open(self, wanted: TwinCandidates) -> list[NarRecord]:
        least = None if wanted.reused_s is None else timedelta(seconds=wanted.reused_s)
        return [
            nar
            for nar in self._catalog.records.values()
            if nar.recompressed_at is None and nar.compression in wanted.compressions
            if (nar.stored_size or 0) >= wanted.min_size and nar.verified_at is not None
            if nar.nar_hash is not None and nar.uploaded_at is None and nar.upstream
            if not nar.made_from and nar.encoding == nar.compression
            if least is None or _use(nar) >= least
            if wanted.used_since is None
            or (nar.last_used_at is not None and nar.last_used_at >= wanted.used_since)
        ]

    async def wanting(self, limit: int, wanted: TwinCandidates) -> Sequence[NarRecord]:
        self._reading()
        found = self._open(wanted)
        return [nar for nar in found if self._catalog.digests_of(nar.key)][:limit]

    async def waiting(self, wanted: TwinCandidates) -> int:
        self._reading()
        return len(self._open(wanted))

    async def join(
        self, twin: NarRecord, original: NarKey, fence: int = 0
    ) -> Sequence[NarInfoEntry]:
        self._writing()
        records = self._catalog.records
        refuse_blocked(self._catalog.blocks.values(), hashes_of(twin))
        there = records.get(original)
        if there is None or not there.is_stored or there.nar_hash != twin.nar_hash:
            raise NotFound("no original")
        await self._catalog.mark_stored(twin, fence)
        records[original] = evolve(records[original], recompressed_at=twin.stored_at)
        await self._move(original, twin)
        return await self._catalog.narinfos_of(twin.key)

    async def tried(self, key: NarKey, at: datetime) -> None:
        self._writing()
        if key in self._catalog.records:
            self._catalog.records[key] = evolve(self._catalog.records[key], recompressed_at=at)

    async def part(self, key: NarKey) -> bool:
        self._writing()
        records = self._catalog.records
        twin = records.get(key)
        if twin is None or not twin.made_from:
            return False
        original = records.get(NarKey.parse(twin.made_from))
        if original is None or original.nar_hash != twin.nar_hash:
            return False
        records[original.key] = original = evolve(original, recompressed_at=None)
        await self._move(key, original)
        return True

    async def _move(self, key: NarKey, to: NarRecord) -> None:
        entries = await self._catalog.narinfos_of(key)
        self._catalog.move(key, to.key, lambda entry: renamed(entry, to))
        if (at := last_shown(entries)) is not None:
            await self._catalog.touch({}, {key: at})

    async def replaced(self, before: datetime, limit: int) -> Sequence[IdleNar]:
        self._reading()
        records = self._catalog.records.values()
        twins = {nar.nar_hash for nar in records if nar.made_from and nar.is_stored}
        found = [
            IdleNar(nar, max(nar.stored_at, nar.last_used_at or nar.stored_at))
            for nar in records
            if nar.stored_at is not None and nar.upstream and nar.nar_hash in twins
            if nar.recompressed_at is not None and nar.recompressed_at < before
            if nar.last_used_at is None or nar.last_used_at < before
            if not self._catalog.digests_of(nar.key)
        ]
        found.sort(key=lambda idle: idle.nar.recompressed_at or before)
        return found[:limit]


def _use(nar: NarRecord) -> timedelta:
    """Return the time between the storing of a NAR and its last use; negative if unused since."""
    if nar.last_used_at is None or nar.stored_at is None:
        return timedelta(-1)
    return nar.last_used_at - nar.stored_at


@define(eq=False)
class MadeFile:
    """A file that exists only as a name; meets `Unfinished`.

    :ivar is_closed: whether it was closed.
    """

    path: Path
    data: bytes
    is_closed: bool = False

    def discard(self) -> None:
        """Unlink it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


class InstantTranscoder(Transcoder):
    """Compresses in memory.

    :ivar orders: the orders that it got.
    :ivar made: the files that it gave away.
    :ivar errors: raised by the next calls.
    :ivar meddle: called in the middle of each call.
    :ivar padding: bytes in a skippable frame, behind each new file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.orders: list[Order] = []
        self.made: list[MadeFile] = []
        self.errors: list[Exception] = []
        self.meddle: Any = lambda: None
        self.padding = 0

    async def transcode(self, source: Body, order: Order) -> Transcoded:
        self.orders.append(order)
        data = b"".join([chunk async for chunk in source])
        self.meddle()
        if self.errors:
            raise self.errors.pop(0)
        nar = bytearray()
        decoder = codec.decoder(order.compression)
        for piece in decoder.feed(data):
            nar += piece
        decoder.finish()
        if len(nar) > order.nar_size:
            raise Corrupt(f"the NAR is longer than {order.nar_size} bytes")
        encoder = zstd.encoder(order.level)
        new = encoder.feed(bytes(nar)) + encoder.finish()
        if self.padding:
            new += b"\x50\x2a\x4d\x18" + self.padding.to_bytes(4, "little") + bytes(self.padding)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"made-{len(self.made)}"
        path.write_bytes(new)
        self.made.append(MadeFile(path, new))
        return Transcoded(
            file=self.made[-1],
            nar_hash=sha256_of(bytes(nar)),
            nar_size=len(nar),
            file_hash=sha256_of(new),
            file_size=len(new),
            cpu_s=0.5,
        )
