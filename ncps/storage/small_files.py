"""Small files of a tree: many are written in one go, as durable as each alone.

    all: temporary file, bytes --> all: fsync --> all: rename --> each directory: fsync, once

Bytes that lie in memory need no file of their own while they arrive. A file appears under its key
by rename only, after its bytes have reached the disk. `write_small` returns when all names have,
too. A process that dies in between leaves temporary files, which a sweep removes, and whole files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias

from attrs import frozen

from ncps.errors import NcpsError
from ncps.storage.directories import Unsynced
from ncps.storage.os_errors import writing
from ncps.storage.sealed import seal
from ncps.storage.temps import TempFile
from ncps.storage.tree import Tree

Outcome: TypeAlias = tuple[os.stat_result, bool] | NcpsError


@frozen(kw_only=True)
class SmallFile:
    """A file to write.

    :param digest: SHA-256 of the bytes; a file that has them already stays. None: replace any file.
    :param aside: key for a file that is there already and has other bytes; empty: it goes.
    """

    key: str
    data: bytes
    digest: bytes | None = None
    aside: str = ""


class _Writing:
    """A file on its way to its key: the steps stop at the first error.

    :ivar facts: properties of the file, once its bytes are on disk.
    :ivar has_replaced: whether another file was there, and lies under the key aside now.
    :ivar error: the reason why the file will not be there.
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
        """Take a step, unless one has failed already."""
        if self.error is None:
            try:
                with writing(self._tree.path(self._file.key)):
                    step()
            except NcpsError as error:
                self.error = error

    def begin(self) -> None:
        """Write the bytes under a temporary name, unless they are there already."""
        file = self._file
        if file.digest is not None:
            self.facts = self._tree.existing(file.key, len(file.data), file.digest)
        if self.facts is None:
            self._temp = self._tree.temps.create("temp")
            self._temp.write(file.data)

    def seal(self) -> None:
        """Bring the bytes to disk."""
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
        """Close the file; remove its temporary name, if it has that still."""
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
    """Write files; blocks. Return for each its properties, or the error that stopped it.

    Beside the properties stands whether the file has replaced another one. An error is StorageFull
    or Unavailable. Of two files with one key, the last one stays.
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
