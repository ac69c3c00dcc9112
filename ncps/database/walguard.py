"""A guard against a write-ahead log that something else has cut, removed or replaced.

SQLite does not notice. It writes on behind the place where the log ended, and with its next
checkpoint it copies the hole into the database, of which nothing is left then. A process that ends
before that, without closing its connections, costs the transactions that were cut off and no more:
the next one to open the database reads the log as far as it is whole.

The file `-shm` says how many frames the log must have. Closing it would free the locks of all
connections of this process, so it stays open until they are closed themselves.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("=IIIBBHII")
"""Version, nothing, changes, two flags, size of a page, number of frames, pages; native order."""
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24


class WalCut(Exception):
    """The log is not what was written."""


class WalGuard:
    """See the module.

    :param path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._log = f"{path}-wal"
        self._index = f"{path}-shm"
        self._index_fd = -1
        self._inode = 0

    def close(self) -> None:
        """Let go of the file, once all connections of this process are closed."""
        if self._index_fd >= 0:
            os.close(self._index_fd)
        self._index_fd, self._inode = -1, 0

    def check(self) -> None:
        """Raise WalCut, unless the log is whole; to be called while the write lock is held."""
        if self._index_fd < 0:
            try:
                self._index_fd = os.open(self._index, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return  # no log: another journal mode, or a file system without shared memory
        header = os.pread(self._index_fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return
        *_, page_size, frames, _ = _HEADER.unpack(header)
        page_size = 65536 if page_size == 1 else page_size
        try:
            facts = Path(self._log).stat()
        except FileNotFoundError:
            raise WalCut(f"{self._log} was removed") from None
        self._inode = self._inode or facts.st_ino
        if facts.st_ino != self._inode:
            raise WalCut(f"{self._log} was replaced")
        least = _LOG_HEADER + frames * (page_size + _FRAME_HEADER) if frames else 0
        if facts.st_size < least:
            raise WalCut(f"{self._log} was cut to {facts.st_size} bytes of at least {least}")
