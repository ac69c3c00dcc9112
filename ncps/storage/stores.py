"""The storage ports, written once over `ncps.storage.blobs`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import (
    Body,
    ConfigStore,
    ExtraKey,
    ExtraKind,
    ExtraStat,
    ExtraStore,
    NarInfoStore,
    NarStore,
    RealisationStore,
    Reopen,
    SetAside,
    Spooled,
    Stat,
)
from ncps.storage import keys
from ncps.storage.blobs import Blob, Blobs, Wanted


class BlobNarStore(NarStore):
    """A store of NAR files below `store/nar`, with the quarantine below `store/quarantine`.

    :param now: returns seconds since 1970, for keys in the quarantine.
    """

    def __init__(self, blobs: Blobs, *, now: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self._now = now
        self._replaced: Callable[[], object] = lambda: None

    async def stat(self, key: NarKey) -> Stat | None:
        blob = await self._blobs.stat(keys.nar_key(key))
        return None if blob is None else _stat(key, blob)

    async def first_of(self, candidates: Sequence[NarKey]) -> Stat | None:
        found = await self._blobs.first_of([keys.nar_key(key) for key in candidates])
        return None if found is None else _stat(candidates[found[0]], found[1])

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> Body:
        return await self._blobs.open(keys.nar_key(key), Wanted(start, stop, size, tag))

    def reopener(self, key: NarKey, *, size: int, tag: str) -> Reopen | None:
        return self._blobs.reopener(keys.nar_key(key), size=size, tag=tag)

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        blob, has_replaced = await self._blobs.adopt(keys.nar_key(key), source, self._aside(key))
        if has_replaced:
            self._replaced()
        return _stat(key, blob)

    async def put_small(self, key: NarKey, data: bytes, sha256: Hash) -> Stat:
        named = keys.nar_key(key)
        blob, has_replaced = await self._blobs.put(named, data, sha256, self._aside(key))
        if has_replaced:
            self._replaced()
        return _stat(key, blob)

    def watch(self, replaced: Callable[[], object]) -> None:
        self._replaced = replaced

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        blob = await self._blobs.copy(keys.nar_key(key), keys.nar_key(target), tag=tag)
        return _stat(target, blob)

    async def delete(self, key: NarKey) -> bool:
        return await self._blobs.delete(keys.nar_key(key))

    async def quarantine(self, key: NarKey) -> bool:
        return await self._blobs.move(keys.nar_key(key), self._aside(key))

    def _aside(self, key: NarKey) -> str:
        return keys.quarantine_key(key, keys.new_mark(self._now()))

    async def walk_quarantine(self) -> AsyncIterator[SetAside]:
        async for blob in self._blobs.walk(keys.QUARANTINE):
            found = keys.set_aside_of(blob.key)
            if found is not None:
                key, mark, since = found
                yield SetAside(key=key, mark=mark, size=blob.size, since=since)

    async def discard(self, aside: SetAside) -> None:
        await self._blobs.discard(keys.quarantine_key(aside.key, aside.mark))

    async def walk(self) -> AsyncIterator[Stat]:
        async for blob in self._blobs.walk(keys.NARS):
            key = keys.nar_of(blob.key)
            if key is not None:
                yield _stat(key, blob)

    async def location(self, key: NarKey, *, size: int) -> str | None:
        return await self._blobs.location(keys.nar_key(key), size)


class BlobNarInfoStore(NarInfoStore):
    """A store of texts below `store/narinfo`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, digest: str, text: bytes) -> None:
        await self._blobs.write(keys.narinfo_key(digest), text)

    async def get(self, digest: str) -> bytes | None:
        return await self._blobs.read(keys.narinfo_key(digest))

    async def delete(self, digest: str) -> bool:
        return await self._blobs.delete(keys.narinfo_key(digest))

    async def written(self, digest: str) -> datetime | None:
        blob = await self._blobs.stat(keys.narinfo_key(digest))
        return None if blob is None else blob.modified

    async def walk(self) -> AsyncIterator[str]:
        async for blob in self._blobs.walk(keys.NARINFOS):
            digest = keys.digest_of(blob.key)
            if digest is not None:
                yield digest


class BlobRealisationStore(RealisationStore):
    """A store of texts below `store/realisation`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, digest: str, text: bytes) -> None:
        await self._blobs.write(keys.realisation_key(digest), text)

    async def get(self, digest: str) -> bytes | None:
        return await self._blobs.read(keys.realisation_key(digest))

    async def delete(self, digest: str) -> bool:
        return await self._blobs.delete(keys.realisation_key(digest))

    async def walk(self) -> AsyncIterator[str]:
        async for blob in self._blobs.walk(keys.REALISATIONS):
            digest = keys.realisation_of(blob.key)
            if digest is not None:
                yield digest


class BlobExtraStore(ExtraStore):
    """A store of logs, listings and debug links below `store/extra`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def open(self, key: ExtraKey) -> Body:
        return await self._blobs.open(keys.extra_key(key), Wanted())

    async def read(self, key: ExtraKey) -> bytes | None:
        return await self._blobs.read(keys.extra_key(key))

    async def put(self, key: ExtraKey, data: bytes) -> None:
        await self._blobs.write(keys.extra_key(key), data)

    async def delete(self, key: ExtraKey) -> bool:
        return await self._blobs.delete(keys.extra_key(key))

    async def walk(self, kind: ExtraKind, *, is_uploaded: bool) -> AsyncIterator[ExtraStat]:
        async for blob in self._blobs.walk(keys.extras(kind, is_uploaded=is_uploaded)):
            key = keys.extra_of(blob.key, kind, is_uploaded=is_uploaded)
            if key is not None:
                yield ExtraStat(key=key, size=blob.size, modified=blob.modified)


class BlobConfigStore(ConfigStore):
    """A store of the signing key and a few small secrets below `config`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def get(self, name: str) -> bytes | None:
        return await self._blobs.read(keys.config_key(name))

    async def create(self, name: str, value: bytes) -> bytes:
        return await self._blobs.create(keys.config_key(name), value)

    async def replace(self, name: str, value: bytes) -> None:
        await self._blobs.write(keys.config_key(name), value)


def _stat(key: NarKey, blob: Blob) -> Stat:
    return Stat(key=key, size=blob.size, modified=blob.modified, tag=blob.tag)
