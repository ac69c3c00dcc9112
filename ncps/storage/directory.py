"""Blobs in a local directory, laid out as `ncps.storage.keys` says.

Threads write, and all writes are durable. Threads also open and read files, except for bytes that
the kernel has in memory: see `ncps.storage.calls`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final

from ncps.aio.nowait import open_now
from ncps.aio.threads import Threads
from ncps.aio.unchanged_file import UnchangedFile
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Reopen, Replaced, Spooled
from ncps.storage import keys
from ncps.storage.blobs import Blob, Blobs, Wanted
from ncps.storage.calls import Calls
from ncps.storage.directory_body import LocalBody
from ncps.storage.os_errors import reading
from ncps.storage.small_files import SmallFile, SmallFiles
from ncps.storage.tree import Tree

WALK_BATCH: Final = 500
"""Objects that a walk reads in one call of a thread."""


class DirectoryBlobs(Blobs):
    """Blobs that are files of a tree.

    :param workers: threads that write, walk and read small objects.
    :param readers: make the calls that look at objects, open and read them; None to use `workers`.
    :param small: writes small files; None for one that groups them and counts nothing.
    """

    def __init__(
        self,
        tree: Tree,
        workers: Threads,
        readers: Calls | None = None,
        small: SmallFiles | None = None,
    ) -> None:
        self._tree = tree
        self._workers = workers
        self._readers = readers if readers is not None else Calls(workers)
        self._small = small if small is not None else SmallFiles(tree, workers)

    async def stat(self, key: str) -> Blob | None:
        facts = await self._readers.run(partial(self._tree.stat, key), line=keys.file_name(key))
        return None if facts is None else self._blob(key, facts)

    async def first_of(self, candidates: Sequence[str]) -> tuple[int, Blob] | None:
        look = partial(self._tree.first_of, candidates)
        found = await self._readers.run(look, line=keys.file_name(candidates[0]))
        return None if found is None else (found[0], self._blob(candidates[found[0]], found[1]))

    async def open(self, key: str, wanted: Wanted) -> LocalBody:
        name = keys.file_name(key)
        path = os.fsencode(self._tree.path(key))
        opened = self._open_now(path, name) if self._readers.may_be_prompt else None
        if opened is None:
            look = partial(self._open_blocking, key, name)
            opened = await self._readers.run(look, line=name, drop=self._close)
        file, facts = opened
        try:
            end = wanted.end(name, facts.st_size)
            if wanted.tag is not None and not self._is_same(wanted.tag, facts):
                raise Replaced(f"{name} was replaced or changed in the store")
        except Corrupt:
            self._close(opened)
            raise
        return LocalBody(file=file, name=name, start=wanted.start, stop=end, calls=self._readers)

    def reopener(self, key: str, *, size: int, tag: str) -> Reopen | None:
        if not self._readers.is_local:
            return None
        path, name = os.fsencode(self._tree.path(key)), keys.file_name(key)
        readers, open_file = self._readers, self._open_now
        parts = _parts_of(tag)

        def reopen() -> UnchangedFile | None:
            opened = open_file(path, name) if readers.may_be_prompt else None
            if opened is None:
                return None
            file, facts = opened
            if facts.st_size == size and _is_same(parts, facts):
                return file
            os.close(file.fd)
            return None

        return reopen

    async def read(self, key: str) -> bytes | None:
        return await self._workers.run(self._read_blocking, key)

    def _read_blocking(self, key: str) -> bytes | None:
        if not keys.is_sharded(key):
            self._tree.check_present()  # the readiness check reads a secret to test the store
        return self._tree.read(key)

    async def write(self, key: str, data: bytes) -> None:
        await self._small.write(SmallFile(key=key, data=data))

    async def put(self, key: str, data: bytes, sha256: Hash, aside: str) -> tuple[Blob, bool]:
        file = SmallFile(key=key, data=data, digest=sha256.digest, aside=aside)
        facts, has_replaced = await self._small.write(file)
        return self._blob(key, facts), has_replaced

    async def create(self, key: str, data: bytes) -> bytes:
        return await self._workers.run(self._create_blocking, key, data)

    def _create_blocking(self, key: str, data: bytes) -> bytes:
        if self._tree.create(key, data):
            return data
        winner = self._tree.read(key)
        if winner is None:
            raise Unavailable(f"{key} was removed just after it had been created")
        return winner

    async def adopt(self, key: str, source: Spooled, aside: str) -> tuple[Blob, bool]:
        return await self._workers.run(self._adopt_blocking, key, source, aside)

    def _adopt_blocking(self, key: str, source: Spooled, aside: str) -> tuple[Blob, bool]:
        facts = self._tree.adopt(key, source.path, source.size, source.sha256.digest, aside)
        return self._blob(key, facts), self._tree.stat(aside) is not None

    async def copy(self, key: str, target: str, *, tag: str) -> Blob:
        return await self._workers.run(self._copy_blocking, key, target, tag)

    def _copy_blocking(self, key: str, target: str, tag: str) -> Blob:
        try:
            found = self._tree.copy(key, target, partial(self._is_same, tag))
        except Corrupt as error:
            raise Replaced(str(error)) from error
        facts = self._tree.stat(target) if found else None
        if facts is None:
            raise NotFound(f"{keys.file_name(key)} is not in the store")
        return self._blob(target, facts)

    async def move(self, key: str, target: str) -> bool:
        return await self._workers.run(self._tree.move, key, target)

    async def delete(self, key: str) -> bool:
        return await self._workers.run(self._tree.remove, key)

    async def discard(self, key: str) -> None:
        await self._workers.run(self._tree.remove, key)

    async def walk(self, base: str) -> AsyncIterator[Blob]:
        found = self._tree.walk(base)
        while batch := await self._workers.run(self._batch_blocking, found):
            for blob in batch:
                yield blob

    def _batch_blocking(self, found: Iterator[tuple[str, os.stat_result]]) -> list[Blob]:
        return [self._blob(key, facts) for key, facts in islice(found, WALK_BATCH)]

    def _blob(self, key: str, facts: os.stat_result) -> Blob:
        return Blob(
            key=key,
            size=facts.st_size,
            modified=_moment(facts.st_mtime),
            tag=self._tag(facts),
        )

    def _tag(self, facts: os.stat_result) -> str:
        """Return the time of the last change, and the inode on a local file system.

        A program that replaces a file may restore the time; then the inode differs. The ctime is
        not part of the tag, because each backup by hard links sets it. Some network file systems
        give a file another inode at each mount.
        """
        changed = f"{facts.st_mtime_ns:x}"
        return f"{changed}-{facts.st_ino:x}" if self._readers.is_local else changed

    def _is_same(self, tag: str, facts: os.stat_result) -> bool:
        """Return whether a file with these properties has this tag.

        The inode counts if both have one: a tag of an earlier version or of a network file system
        has none.
        """
        changed, inode = _parts_of(tag)
        return _is_same((changed, inode if self._readers.is_local else None), facts)

    def _open_now(self, path: bytes, name: str) -> tuple[UnchangedFile, os.stat_result] | None:
        """Open a file if that needs no waiting; None if a thread must open it."""
        began = self._readers.now()
        fd = open_now(path)
        if fd is None:
            return None
        facts = os.fstat(fd)
        self._readers.took(self._readers.now() - began)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            return None
        return UnchangedFile(fd, name, facts), facts

    def _open_blocking(self, key: str, name: str) -> tuple[UnchangedFile, os.stat_result]:
        path = self._tree.path(key)
        with reading(path):
            try:
                # Non-blocking, because another program may have made a pipe there.
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                self._tree.check_present()
                raise NotFound(f"{name} is not in the store") from None
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENXIO}:  # a link to itself, a socket
                    raise
                raise Corrupt(f"{path} is not a file") from None
            facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            raise Corrupt(f"{path} is not a file")
        return UnchangedFile(fd, name, facts), facts

    def _close(self, opened: tuple[UnchangedFile, os.stat_result]) -> None:
        self._readers.forget(partial(os.close, opened[0].fd))


def _parts_of(tag: str) -> tuple[int, int | None]:
    """Return the time and the inode in a tag; -1 and None if it is not a tag of this store."""
    changed, _, inode = tag.partition("-")
    try:
        return int(changed, 16), int(inode, 16) if inode else None
    except ValueError:
        return -1, None


def _is_same(parts: tuple[int, int | None], facts: os.stat_result) -> bool:
    changed, inode = parts
    return facts.st_mtime_ns == changed and (inode is None or facts.st_ino == inode)


def _moment(seconds: float) -> datetime:
    """Return the time of a file; the present time if it is outside the years of `datetime`."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)
