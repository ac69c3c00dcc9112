"""Unchanged files: reads that notice when a file that should never change has changed.

ncps writes a stored file once and replaces it only as a whole, so a process can read its open file
for ever. But another program may truncate the file. Then the kernel fills the pages of the rest
with zeros. A read at that moment, and every page that `sendfile` has lent to a socket, contain
bytes that were never in the file. So ncps copies the bytes, and uses them only if the file is
unchanged after the copy: the kernel sets the new size before it fills a page.
"""

from __future__ import annotations

import os

from ncps.aio.nowait import bytes_now, read_now
from ncps.errors import Corrupt, unreadable


class UnchangedFile:
    """An open file, as it is now.

    :param fd: open for reading; the caller closes it.
    :param name: for messages.
    :param facts: `fstat` of the file; None to call it now.
    """

    def __init__(
        self, fd: int, name: str = "a stored file", facts: os.stat_result | None = None
    ) -> None:
        self.fd = fd
        self._name = name
        found = self._look() if facts is None else facts
        self._state = found.st_size, found.st_mtime_ns

    def _look(self) -> os.stat_result:
        try:
            return os.fstat(self.fd)
        except OSError as error:
            raise unreadable(self._name, error) from error

    def read_into(self, buffer: memoryview, position: int) -> int | None:
        """Copy the bytes at a position if they are in memory; return how many, at least one.

        None: a read would wait for the disk. Raises Corrupt if the file ends at the position, or
        has changed, Unavailable if it cannot be read now.
        """
        try:
            count = read_now(self.fd, buffer, position)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if count is not None:
            self._check(count)
        return count

    def read_now(self, count: int, position: int) -> bytes | None:
        """Return at most `count` bytes that are in memory; None and errors as in `read_into`."""
        try:
            data = bytes_now(self.fd, count, position)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if data is not None:
            self._check(len(data))
        return data

    def read(self, count: int, position: int) -> bytes:
        """Return at most `count` bytes, blocking; raises the errors of `read_into`."""
        try:
            data = os.pread(self.fd, count, position)
        except OSError as error:
            raise unreadable(self._name, error) from error
        self._check(len(data))
        return data

    def _check(self, count: int) -> None:
        if not count:
            raise Corrupt(f"{self._name} is shorter than it was")
        found = self._look()
        if (found.st_size, found.st_mtime_ns) != self._state:
            raise Corrupt(f"{self._name} was changed while it was read")
