"""A guard that notices if another program removes or replaces the database, or truncates its log.

Rows in a removed file are lost when the process ends. If another database, such as a backup, has
replaced this one, the next process would copy the frames of the old log into it. So the guard
renames the log. It also renames its index, the file `-shm`: other workers may still use the index,
and a process that opens it would search the old frames in a new log.

If the log was truncated, SQLite continues to write after its former end. The next checkpoint copies
the hole into the database and destroys it. If the process ends before that, without closing its
connections, it loses only the transactions that were cut off: the next process reads the log up to
the hole.

The file `-shm` contains the number of frames in the log. To close it would free the locks of all
connections of this process, so it stays open until they are closed.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("=IIIBBHII")
"""Version, unused, changes, two flags, size of a page, number of frames, pages; native order."""
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24


class WalCut(Exception):
    """An error: another program has changed the database or its log."""


class WalGuard:
    """A guard of database, log and index; it checks that they are still the same files.

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
        """Store the identities of database, log and index, after a connection has read them.

        Raises OSError if the database cannot be accessed.
        """
        self._known = _identity(self._database)
        self._has_index()
        log = _identity(self._log)
        self._inode = 0 if log is None else log[1]

    def close(self) -> None:
        """Close the index; only after all connections of this process are closed."""
        if self._index_fd >= 0:
            os.close(self._index_fd)
        self._index_fd, self._inode = -1, 0

    def check(self) -> None:
        """Raise WalCut unless database and log are the same files as before, and complete.

        The caller holds the write lock.
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
        """Raise WalCut unless the database is the same file as before."""
        try:
            found = _identity(self._database)
        except OSError:
            return  # the file system does not answer; SQLite will raise an error
        if found == self._known:
            return
        # The log first: SQLite makes a new index from the log.
        self._put_aside(str(self._log), self._inode)
        if self._index_fd >= 0:
            self._put_aside(self._index, os.fstat(self._index_fd).st_ino)
        what = "removed (`ncps rebuild` makes it again)" if found is None else "replaced"
        raise WalCut(f"{self._database} was {what}")

    @staticmethod
    def _put_aside(path: str, inode: int) -> None:
        """Rename a file, unless a process with the new database has made another one already."""
        with suppress(OSError):  # the file is missing
            if Path(path).stat().st_ino == inode:
                Path(path).rename(f"{path}.aside")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None if there is none. Raises OSError otherwise."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
