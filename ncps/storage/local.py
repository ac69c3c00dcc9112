"""The storage ports on a local directory, laid out as `ncps.storage.keys` says.

Writing is durable and happens in threads. Reading happens on the reactor's thread, since a read of
a local disk's cache is shorter than the way to a thread and back; a directory on a network file
system is read through the threads, too (`reads_in_workers`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final, ParamSpec, TypeVar

from attrs import evolve

from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import ConfigStore, NarInfoStore, NarStore, Replaced, SetAside, Spooled, Stat
from ncps.storage import keys
from ncps.storage.local_body import LocalBody
from ncps.storage.oserrors import reading
from ncps.storage.temps import TempFile
from ncps.storage.tree import Tree
from ncps.workers import Threads

P = ParamSpec("P")
R = TypeVar("R")

WALK_BATCH: Final = 500
"""Objects per hop into a thread."""


class LocalNarStore(NarStore):
    """NAR files below `store/nar`.

    :param reads_in_workers: whether stat, open and read may take long: network file systems.
    :param now: seconds since the epoch, for the names of what is set aside.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        workers: Threads,
        reads_in_workers: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tree = tree
        self._workers = workers
        self._readers = workers if reads_in_workers else None
        self._now = now
        self._replaced: Callable[[], object] = lambda: None

    async def stat(self, key: NarKey) -> Stat | None:
        facts = await self._read(self._tree.stat, keys.nar_key(key))
        return None if facts is None else _stat(key, facts)

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> LocalBody:
        fd, facts = await self._read(self._open_blocking, key)
        actual = facts.st_size
        end = actual if stop is None else stop
        if size not in (None, actual) or not 0 <= start <= end <= actual:
            os.close(fd)
            wanted = f"bytes {start} to {end}" if size is None else f"{size} bytes"
            raise Corrupt(f"{key.file_name} has {actual} bytes in the store, wanted: {wanted}")
        if tag not in (None, _tag(facts)):
            os.close(fd)
            raise Replaced(f"{key.file_name} was replaced or changed in the store")
        return LocalBody(fd=fd, name=key.file_name, start=start, stop=end, workers=self._readers)

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        published, has_replaced = await self._workers.run(self._publish_blocking, key, source)
        if has_replaced:
            self._replaced()
        return published

    def _publish_blocking(self, key: NarKey, source: Spooled) -> tuple[Stat, bool]:
        where, aside, digest = keys.nar_key(key), self._aside(key), source.sha256.digest
        facts = self._tree.adopt(where, source.path, source.size, digest, aside)
        return _stat(key, facts), self._tree.stat(aside) is not None

    def watch(self, replaced: Callable[[], object]) -> None:
        self._replaced = replaced

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        return await self._workers.run(self._copy_blocking, key, target, tag)

    def _copy_blocking(self, key: NarKey, target: NarKey, tag: str) -> Stat:
        def is_same(facts: os.stat_result) -> bool:
            return _tag(facts) == tag

        try:
            found = self._tree.copy(keys.nar_key(key), keys.nar_key(target), is_same)
        except Corrupt as error:
            raise Replaced(str(error)) from error
        facts = self._tree.stat(keys.nar_key(target)) if found else None
        if facts is None:
            raise NotFound(f"{key.file_name} is not in the store")
        return evolve(_stat(target, facts), tag=tag)

    async def delete(self, key: NarKey) -> bool:
        return await self._workers.run(self._tree.remove, keys.nar_key(key))

    async def quarantine(self, key: NarKey) -> bool:
        return await self._workers.run(self._tree.move, keys.nar_key(key), self._aside(key))

    def _aside(self, key: NarKey) -> str:
        return keys.quarantine_key(key, keys.new_mark(self._now()))

    async def walk_quarantine(self) -> AsyncIterator[SetAside]:
        async for object_key, facts in _walk(self._tree.files(keys.QUARANTINE), self._workers):
            found = keys.set_aside_of(object_key)
            if found is not None:
                key, mark, since = found
                yield SetAside(key=key, mark=mark, size=facts.st_size, since=since)

    async def discard(self, aside: SetAside) -> None:
        where = keys.quarantine_key(aside.key, aside.mark)
        await self._workers.run(self._tree.remove, where, in_shard=False)

    async def walk(self) -> AsyncIterator[Stat]:
        async for object_key, facts in _walk(self._tree.walk(keys.NARS), self._workers):
            key = keys.nar_of(object_key)
            if key is not None:
                yield _stat(key, facts)

    def new_spool(self) -> TempFile:
        """Open a file for bytes to come, which `publish` can rename.

        StorageFull, Unavailable.
        """
        return self._tree.temps.create("spool")

    def free_bytes(self) -> int:
        """Room left for this user on the file system. Unavailable."""
        with reading(str(self._tree.root)):
            facts = os.statvfs(self._tree.root)
        return facts.f_bavail * facts.f_frsize

    async def _read(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._readers is None:
            return function(*args, **kwargs)
        return await self._readers.run(function, *args, **kwargs)

    def _open_blocking(self, key: NarKey) -> tuple[int, os.stat_result]:
        path = self._tree.path(keys.nar_key(key))
        with reading(path):
            try:
                # Non-blocking, since a foreign thing of that name might be a pipe.
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                self._tree.check_present()
                raise NotFound(f"{key.file_name} is not in the store") from None
            facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise Unavailable(f"{path} is not a file")
        return fd, facts


class LocalNarInfoStore(NarInfoStore):
    """Texts below `store/narinfo`."""

    def __init__(self, *, tree: Tree, workers: Threads) -> None:
        self._tree = tree
        self._workers = workers

    async def put(self, digest: str, text: bytes) -> None:
        await self._workers.run(self._tree.write, keys.narinfo_key(digest), text)

    async def get(self, digest: str) -> bytes | None:
        return await self._workers.run(self._tree.read, keys.narinfo_key(digest))

    async def delete(self, digest: str) -> bool:
        return await self._workers.run(self._tree.remove, keys.narinfo_key(digest))

    async def written(self, digest: str) -> datetime | None:
        facts = await self._workers.run(self._tree.stat, keys.narinfo_key(digest))
        return None if facts is None else datetime.fromtimestamp(facts.st_mtime, UTC)

    async def walk(self) -> AsyncIterator[str]:
        async for object_key, _ in _walk(self._tree.walk(keys.NARINFOS), self._workers):
            digest = keys.digest_of(object_key)
            if digest is not None:
                yield digest


class LocalConfigStore(ConfigStore):
    """Small files below `config`, readable for this user only."""

    def __init__(self, *, tree: Tree, workers: Threads) -> None:
        self._tree = tree
        self._workers = workers

    async def get(self, name: str) -> bytes | None:
        return await self._workers.run(self._tree.read, keys.config_key(name))

    async def create(self, name: str, value: bytes) -> bytes:
        return await self._workers.run(self._create_blocking, keys.config_key(name), value)

    async def replace(self, name: str, value: bytes) -> None:
        await self._workers.run(self._tree.write, keys.config_key(name), value)

    def _create_blocking(self, key: str, value: bytes) -> bytes:
        if self._tree.create(key, value):
            return value
        winner = self._tree.read(key)
        if winner is None:
            raise Unavailable(f"{key} was removed just after it had been created")
        return winner


def _stat(key: NarKey, facts: os.stat_result) -> Stat:
    modified = datetime.fromtimestamp(facts.st_mtime, UTC)
    return Stat(key=key, size=facts.st_size, modified=modified, tag=_tag(facts))


def _tag(facts: os.stat_result) -> str:
    """The time of the last change: no inode, since some file systems give another at each mount."""
    return f"{facts.st_mtime_ns:x}"


async def _walk(
    found: Iterator[tuple[str, os.stat_result]], workers: Threads
) -> AsyncIterator[tuple[str, os.stat_result]]:
    """Walk in batches: one hop into a thread per batch, one batch in memory."""

    def next_batch_blocking(
        source: Iterator[tuple[str, os.stat_result]],
    ) -> list[tuple[str, os.stat_result]]:
        return list(islice(source, WALK_BATCH))

    while batch := await workers.run(next_batch_blocking, found):
        for item in batch:
            yield item
