"""A guard that notices other programs which remove or replace the database, or cut its log.

Rows that are written into a file without a name are lost when the process ends. If another
database, such as a backup, was put in the place of ours, the next process that opens it would copy
the frames of our log into it; therefore our log is renamed. Its index, the file `-shm`, is renamed
as well: another process of ours may live on with it, and a process that opens the index then would
look for our frames in a new log.

If the log was cut, SQLite writes on behind the place where the log ended. Its next checkpoint
copies the hole into the database and destroys it. A process that ends before that, without closing
its connections, loses the transactions that were cut off and no more: the next process that opens
the database reads the log as far as it is whole.

The file `-shm` says how many frames the log must have. Closing it would free the locks of all
connections of this process, so it stays open until they are closed themselves.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("=IIIBBHII")
"""Version, nothing, changes, two flags, size of a page, number of frames, pages; native order."""
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24


class WalCut(Exception):
    """Another program has changed the database or its log."""


class WalGuard:
    """Looks whether database, log and index are still the files that this process opened.

    :param path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._database = path
        self._known: tuple[int, int] | None = None
        self._log = Path(f"{path}-wal")
        self._index = f"{path}-shm"
        self._index_fd = -1
        self._inode = 0

    def open(self) -> None:
        """Note which files database, log and index are, after a connection has read from them.

        Raises OSError if the database cannot be looked at.
        """
        self._known = _identity(self._database)
        self._has_index()
        log = _identity(self._log)
        self._inode = 0 if log is None else log[1]

    def close(self) -> None:
        """Close the index; to be called after all connections of this process are closed."""
        if self._index_fd >= 0:
            os.close(self._index_fd)
        self._index_fd, self._inode = -1, 0

    def check(self) -> None:
        """Raise WalCut unless database and log are what they were.

        To be called while the write lock is held.
        """
        self.check_database()
        if not self._has_index():
            return  # no log: another journal mode, or a file system without shared memory
        header = os.pread(self._index_fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return
        *_, page_size, frames, _ = _HEADER.unpack(header)
        page_size = 65536 if page_size == 1 else page_size
        try:
            facts = self._log.stat()
        except FileNotFoundError:
            raise WalCut(f"{self._log} was removed") from None
        self._inode = self._inode or facts.st_ino
        if facts.st_ino != self._inode:
            raise WalCut(f"{self._log} was replaced")
        least = _LOG_HEADER + frames * (page_size + _FRAME_HEADER) if frames else 0
        if facts.st_size < least:
            raise WalCut(f"{self._log} was cut to {facts.st_size} bytes of at least {least}")

    def _has_index(self) -> bool:
        """Open the index if it is not open yet; return whether it is open."""
        if self._index_fd < 0:
            with suppress(OSError):
                self._index_fd = os.open(self._index, os.O_RDONLY | os.O_CLOEXEC)
        return self._index_fd >= 0

    def check_database(self) -> None:
        """Raise WalCut unless the database is the file that it was."""
        try:
            found = _identity(self._database)
        except OSError:
            return  # the file system cannot tell; SQLite will have an error for it
        if found == self._known:
            return
        # The log first: a new index is made from the log that lies there.
        self._put_aside(str(self._log), self._inode)
        if self._index_fd >= 0:
            self._put_aside(self._index, os.fstat(self._index_fd).st_ino)
        what = "removed (`ncps rebuild` makes it anew)" if found is None else "replaced"
        raise WalCut(f"{self._database} was {what}")

    @staticmethod
    def _put_aside(path: str, inode: int) -> None:
        """Rename a file, unless a process that uses the new database has already made another."""
        with suppress(OSError):  # there is none
            if Path(path).stat().st_ino == inode:
                Path(path).rename(f"{path}.aside")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None if there is none. Raises OSError otherwise."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
