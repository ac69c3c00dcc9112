"""The directories of a tree: durable before a file in them is, and removed with their last file.

Another thread or process may remove a shard directory between its making and the rename of a file
into it. Then the directory is made again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ncps.errors import Unavailable
from ncps.storage import keys

_ATTEMPTS: Final = 100
_MODE: Final = 0o700


class Directories:
    """The directories between the root of a tree and its files.

    :param root: absolute.
    """

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}/"
        self._durable: set[str] = set()  # directories whose own names are known to be on disk

    def path(self, key: str) -> str:
        """Return the path of the object that has this key."""
        return self._prefix + key

    def check_present(self) -> None:
        """Raise Unavailable unless the tree is there: an unmounted disk has lost no object."""
        base = self._prefix + keys.NARS
        if not Path(base).is_dir():
            raise Unavailable(f"{base} is not there: the disk may not be mounted")

    def install(self, operation: Callable[[Path, str], None], source: Path, key: str) -> None:
        """Rename or link a sealed file to its key, durably."""
        path = self.path(key)
        for _ in range(_ATTEMPTS):
            try:
                self.make_parents(path)
                operation(source, path)
            except FileNotFoundError:
                if not source.exists():
                    raise
                self.check_present()  # if the tree is there, another thread has pruned the shard
            else:
                break
        else:
            raise Unavailable(f"{path}: its directory disappears again and again")
        with suppress(FileNotFoundError):  # another thread has deleted the file and pruned already
            sync_directory(path.rpartition("/")[0])

    def make_parents(self, path: str) -> None:
        """Make the directories between the root and a file, and make their names durable.

        Raises FileNotFoundError if another thread removes one of them meanwhile.
        """
        slash = path.find("/", len(self._prefix))
        while slash != -1:
            directory = path[:slash]
            try:
                Path(directory).mkdir(_MODE)
                is_new = True
            except FileExistsError:
                # One look decides, since another thread may prune the directory and make it again.
                mode = os.lstat(directory).st_mode
                if not stat.S_ISDIR(mode) and not Path(directory).is_dir():
                    raise
                is_new = False
            if is_new or directory not in self._durable:
                sync_directory(directory.rpartition("/")[0])
                self._durable.add(directory)
            slash = path.find("/", slash + 1)

    def prune(self, path: str) -> None:
        """Remove the shard directories above a removed file, as far as they are empty."""
        for _ in range(2):
            path = path.rpartition("/")[0]
            # Forget the directory first: a thread that makes it again meanwhile must sync it.
            self._durable.discard(path)
            try:
                Path(path).rmdir()
            except OSError:  # not empty, or gone already
                return


def sync_directory(path: str) -> None:
    """Bring the names in a directory to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
