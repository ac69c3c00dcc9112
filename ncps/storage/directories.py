"""The directories of a tree: durable before their files, and removed with their last file.

Another thread or process may remove a new shard directory before a file is renamed into it. Then
the directory is made again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import field, frozen

from ncps.errors import Unavailable
from ncps.storage import keys
from ncps.storage.os_errors import reading

_ATTEMPTS: Final = 100
_MODE: Final = 0o700


@frozen
class Unsynced:
    """The names that are not durable yet.

    :param directories: directories with new entries.
    :param made: new directories.
    """

    directories: dict[str, None] = field(factory=dict)
    made: set[str] = field(factory=set)


class Directories:
    """The directories between the root of a tree and its files.

    :param root: absolute.
    """

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}/"
        self._base = Path(self._prefix + keys.NARS)
        self._durable: set[str] = set()  # directories whose names are on disk

    def path(self, key: str) -> str:
        """Return the path of the object with this key."""
        return self._prefix + key

    def check_present(self) -> None:
        """Raise Unavailable if the tree is missing: an unmounted disk has lost no object."""
        with reading(str(self._base)):  # some errors are no answer, such as those of a server
            is_there = self._base.is_dir()
        if not is_there:
            raise Unavailable(f"{self._base} does not exist: the disk may not be mounted")

    def install(self, operation: Callable[[str, str], None], source: str, key: str) -> None:
        """Rename or link a sealed file to its key, durably."""
        unsynced = Unsynced()
        self.place(operation, source, key, unsynced)
        self.sync(unsynced)

    def place(
        self, operation: Callable[[str, str], None], source: str, key: str, unsynced: Unsynced
    ) -> None:
        """Rename or link a sealed file to its key; the name is durable after `sync`."""
        path = self.path(key)
        for _ in range(_ATTEMPTS):
            try:
                self._make_parents(path, unsynced)
                operation(source, path)
            except FileNotFoundError:
                if not Path(source).exists():
                    raise
                self.check_present()  # if the tree is there, another thread has pruned the shard
                self._durable.difference_update(self._parents(path))  # or another process has
            else:
                break
        else:
            raise Unavailable(f"{path}: its directory disappears again and again")
        unsynced.directories[path.rpartition("/")[0]] = None

    def sync(self, unsynced: Unsynced) -> None:
        """Sync the names of placed files to disk, each directory once."""
        for directory in unsynced.directories:
            with suppress(FileNotFoundError):  # another thread has deleted the files and pruned
                sync_directory(directory)
        self._durable |= unsynced.made

    def make_parents(self, path: str) -> None:
        """Make the directories between the root and a file, and make their names durable.

        Raises FileNotFoundError if another thread removes one of them at the same time.
        """
        unsynced = Unsynced()
        self._make_parents(path, unsynced)
        for directory in unsynced.directories:
            sync_directory(directory)
        self._durable |= unsynced.made

    def _make_parents(self, path: str, unsynced: Unsynced) -> None:
        if path.rpartition("/")[0] in self._durable:
            return  # and so are those above it, because `prune` forgets the lowest one first
        for directory in self._parents(path):
            if directory in self._durable:
                continue  # if it is gone nevertheless, the next step fails
            with suppress(FileExistsError):
                Path(directory).mkdir(_MODE)
            # One call decides: another thread may remove the directory and make it again.
            if not stat.S_ISDIR(os.lstat(directory).st_mode) and not Path(directory).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
            unsynced.directories[directory.rpartition("/")[0]] = None
            unsynced.made.add(directory)

    def _parents(self, path: str) -> Iterator[str]:
        """Yield the directories between the root and a file, the uppermost first."""
        slash = path.find("/", len(self._prefix))
        while slash != -1:
            yield path[:slash]
            slash = path.find("/", slash + 1)

    def prune(self, path: str) -> None:
        """Remove the shard directories above a removed file if they are empty."""
        for _ in range(2):
            path = path.rpartition("/")[0]
            # Forget the directory first: a thread that makes it again must sync it.
            self._durable.discard(path)
            try:
                Path(path).rmdir()
            except OSError:  # not empty, or gone already
                return


def sync_directory(path: str) -> None:
    """Sync the names in a directory to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
