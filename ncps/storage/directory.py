"""The storage ports on a local directory, laid out as `ncps.storage.keys` says.

Writing is durable and happens in threads. So does reading, but for what the kernel has in memory:
see `calls`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final

from ncps.aio.nowait import open_now
from ncps.aio.threads import Threads
from ncps.aio.unchanged_file import StillFile
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import ConfigStore, NarInfoStore, NarStore, Replaced, SetAside, Spooled, Stat
from ncps.storage import keys
from ncps.storage.calls import Calls
from ncps.storage.directory_body import LocalBody
from ncps.storage.os_errors import reading
from ncps.storage.temps import TempFile
from ncps.storage.tree import Tree

WALK_BATCH: Final = 500
"""Objects per hop into a thread."""


class LocalNarStore(NarStore):
    """NAR files below `store/nar`.

    :param readers: how files are opened and read; by the workers if None.
    :param now: seconds since the epoch, for the names of what is set aside.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        workers: Threads,
        readers: Calls | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tree = tree
        self._workers = workers
        self._readers = readers if readers is not None else Calls(workers)
        self._now = now
        self._replaced: Callable[[], object] = lambda: None

    async def stat(self, key: NarKey) -> Stat | None:
        look = partial(self._tree.stat, keys.nar_key(key))
        facts = await self._readers.run(look, line=key.file_name)
        return None if facts is None else self._stat(key, facts)

    async def open(
        self,
        key: NarKey,
        start: int = 0,
        stop: int | None = None,
        *,
        size: int | None = None,
        tag: str | None = None,
    ) -> LocalBody:
        opened = self._open_now(key) if self._readers.may_be_prompt else None
        if opened is None:
            look = partial(self._open_blocking, key)
            opened = await self._readers.run(look, line=key.file_name, drop=self._close)
        file, facts = opened
        actual = facts.st_size
        end = actual if stop is None else stop
        if size not in (None, actual) or not 0 <= start <= end <= actual:
            self._close(opened)
            wanted = f"bytes {start} to {end}" if size is None else f"{size} bytes"
            raise Corrupt(f"{key.file_name} has {actual} bytes in the store, wanted: {wanted}")
        if tag is not None and not self._is_same(tag, facts):
            self._close(opened)
            raise Replaced(f"{key.file_name} was replaced or changed in the store")
        name = key.file_name
        return LocalBody(file=file, name=name, start=start, stop=end, calls=self._readers)

    async def publish(self, key: NarKey, source: Spooled) -> Stat:
        published, has_replaced = await self._workers.run(self._publish_blocking, key, source)
        if has_replaced:
            self._replaced()
        return published

    def _publish_blocking(self, key: NarKey, source: Spooled) -> tuple[Stat, bool]:
        where, aside, digest = keys.nar_key(key), self._aside(key), source.sha256.digest
        facts = self._tree.adopt(where, source.path, source.size, digest, aside)
        return self._stat(key, facts), self._tree.stat(aside) is not None

    def watch(self, replaced: Callable[[], object]) -> None:
        self._replaced = replaced

    async def copy(self, key: NarKey, target: NarKey, *, tag: str) -> Stat:
        return await self._workers.run(self._copy_blocking, key, target, tag)

    def _copy_blocking(self, key: NarKey, target: NarKey, tag: str) -> Stat:
        def is_same(facts: os.stat_result) -> bool:
            return self._is_same(tag, facts)

        try:
            found = self._tree.copy(keys.nar_key(key), keys.nar_key(target), is_same)
        except Corrupt as error:
            raise Replaced(str(error)) from error
        facts = self._tree.stat(keys.nar_key(target)) if found else None
        if facts is None:
            raise NotFound(f"{key.file_name} is not in the store")
        return self._stat(target, facts)

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
                yield self._stat(key, facts)

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

    def _stat(self, key: NarKey, facts: os.stat_result) -> Stat:
        modified = datetime.fromtimestamp(facts.st_mtime, UTC)
        return Stat(key=key, size=facts.st_size, modified=modified, tag=self._tag(facts))

    def _tag(self, facts: os.stat_result) -> str:
        """The time of the last change and the inode, since whoever replaces a file may restore it.

        Not the time of the inode's change, which each backup by hard links sets. Of file systems
        from elsewhere no inode: some give another at each mount.
        """
        changed = f"{facts.st_mtime_ns:x}"
        return f"{changed}-{facts.st_ino:x}" if self._readers.is_local else changed

    def _is_same(self, tag: str, facts: os.stat_result) -> bool:
        """Whether a tag is that of this file.

        The inode counts if both have one: an earlier version had none, nor has another mount.
        """
        then, now = tag.split("-"), self._tag(facts).split("-")
        return all(before == after for before, after in zip(then, now, strict=False))

    def _open_now(self, key: NarKey) -> tuple[StillFile, os.stat_result] | None:
        """Open what can be opened without waiting; None: a thread has to find out more."""
        began = self._readers.now()
        fd = open_now(self._tree.path(keys.nar_key(key)))
        if fd is None:
            return None
        facts = os.fstat(fd)
        self._readers.took(self._readers.now() - began)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            return None
        return StillFile(fd, key.file_name), facts

    def _open_blocking(self, key: NarKey) -> tuple[StillFile, os.stat_result]:
        path = self._tree.path(keys.nar_key(key))
        with reading(path):
            try:
                # Non-blocking, since a foreign thing of that name might be a pipe.
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                self._tree.check_present()
                raise NotFound(f"{key.file_name} is not in the store") from None
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENXIO}:  # a link to itself, a socket
                    raise
                raise Corrupt(f"{path} is not a file") from None
            facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise Corrupt(f"{path} is not a file")
        return StillFile(fd, key.file_name), facts

    def _close(self, opened: tuple[StillFile, os.stat_result]) -> None:
        self._readers.forget(partial(os.close, opened[0].fd))


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
        return await self._workers.run(self._get_blocking, keys.config_key(name))

    async def create(self, name: str, value: bytes) -> bytes:
        return await self._workers.run(self._create_blocking, keys.config_key(name), value)

    async def replace(self, name: str, value: bytes) -> None:
        await self._workers.run(self._tree.write, keys.config_key(name), value)

    def _get_blocking(self, key: str) -> bytes | None:
        self._tree.check_present()  # readiness looks at the store by this
        return self._tree.read(key)

    def _create_blocking(self, key: str, value: bytes) -> bytes:
        if self._tree.create(key, value):
            return value
        winner = self._tree.read(key)
        if winner is None:
            raise Unavailable(f"{key} was removed just after it had been created")
        return winner


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
