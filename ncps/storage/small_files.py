"""Small files of a tree: many are written together, and each is as durable as alone.

    all: temporary file, bytes --> all: fsync --> all: rename --> each directory: fsync, once

The bytes are in memory, so they need no file while they arrive. A file gets its key by a rename,
after its bytes are on the disk. `write_small` returns when all names are on the disk as well. A
process that dies before that leaves temporary files, which a sweep removes, and complete files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final, TypeAlias

from attrs import frozen

from ncps.aio.grouping import MOST, Grouping
from ncps.aio.threads import Threads
from ncps.errors import NcpsError
from ncps.storage.directories import Unsynced
from ncps.storage.os_errors import writing
from ncps.storage.sealed import seal
from ncps.storage.temps import TempFile
from ncps.storage.tree import Tree

Written: TypeAlias = tuple[os.stat_result, bool]
Outcome: TypeAlias = Written | NcpsError

GROUPS: Final = 2
"""Groups of small files that are written at the same time: one group syncs, another is written."""


@frozen(kw_only=True)
class SmallFile:
    """A file to write.

    :param digest: SHA-256 of the bytes; an existing file with them stays. None: replace any file.
    :param aside: new key for an existing file with other bytes; empty: replace it.
    """

    key: str
    data: bytes
    digest: bytes | None = None
    aside: str = ""


class _Writing:
    """The writing of one file in steps; it stops at the first error.

    :ivar facts: properties of the file; None before its bytes are on disk.
    :ivar has_replaced: whether another file was there, which is under the key `aside` now.
    :ivar error: the error that stopped the writing; None if there is none.
    """

    def __init__(self, tree: Tree, file: SmallFile) -> None:
        self.facts: os.stat_result | None = None
        self.has_replaced = False
        self.error: NcpsError | None = None
        self._tree = tree
        self._file = file
        self._temp: TempFile | None = None
        self._is_placed = False

    def attempt(self, step: Callable[[], object]) -> None:
        """Do a step, unless an earlier one has failed."""
        if self.error is None:
            try:
                with writing(self._tree.path(self._file.key)):
                    step()
            except NcpsError as error:
                self.error = error

    def begin(self) -> None:
        """Write the bytes under a temporary name, unless the file has them already."""
        file = self._file
        if file.digest is not None:
            self.facts = self._tree.existing(file.key, len(file.data), file.digest)
        if self.facts is None:
            self._temp = self._tree.temps.create("temp")
            self._temp.write(file.data)

    def seal(self) -> None:
        """Sync the bytes to disk."""
        if self._temp is not None:
            seal(self._temp.fd)
            self.facts = os.fstat(self._temp.fd)

    def place(self, unsynced: Unsynced) -> None:
        """Give the file its key."""
        if self._temp is not None:
            if self._file.aside:
                self.has_replaced = self._tree.keep_aside(self._file.key, self._file.aside)
            self._tree.directories.place(os.rename, self._temp.name, self._file.key, unsynced)
            self._is_placed = True

    def close(self) -> None:
        """Close the file; remove its temporary name, if it still has one."""
        if self._temp is not None:
            if not self._is_placed:
                self._temp.discard()
            self._temp.close()

    @property
    def outcome(self) -> Outcome:
        """See `write_small`."""
        if self.error is not None:
            return self.error
        assert self.facts is not None
        return self.facts, self.has_replaced


def write_small(tree: Tree, files: Sequence[SmallFile]) -> list[Outcome]:
    """Write files, blocking; return for each its properties, or the error that stopped it.

    With the properties comes whether the file has replaced another one. An error is StorageFull or
    Unavailable. Of two files with one key, the last one stays.
    """
    unsynced = Unsynced()
    with ExitStack() as stack:
        all_writing = [_Writing(tree, file) for file in files]
        for one in all_writing:
            stack.callback(one.close)
            one.attempt(one.begin)
        for one in all_writing:
            one.attempt(one.seal)
        for one in all_writing:
            one.attempt(partial(one.place, unsynced))
        try:
            with writing(str(tree.root)):
                tree.directories.sync(unsynced)
        except NcpsError as error:
            for one in all_writing:
                one.error = one.error or error
    return [one.outcome for one in all_writing]


class SmallFiles:
    """Writes small files in threads, those that wait at the same time together.

    :param workers: threads that write.
    :param most: files of one group, at most.
    :param shared: see `Grouping`.
    """

    def __init__(
        self,
        tree: Tree,
        workers: Threads,
        *,
        most: int = MOST,
        shared: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._tree = tree
        self._workers = workers
        self._files: Grouping[SmallFile, Written] = Grouping(
            self._write_all, at_once=GROUPS, most=most, shared=shared
        )

    async def write(self, file: SmallFile) -> Written:
        """Write a file; return its properties, and whether it has replaced another one.

        Raises StorageFull or Unavailable if that fails.
        """
        return await self._files.add(file)

    async def _write_all(self, files: Sequence[SmallFile]) -> Sequence[Written | BaseException]:
        return await self._workers.run(write_small, self._tree, files)
