"""Unchanged files: reads that notice when a file that never changes has changed.

A stored file is written once and replaced only as a whole, so a process that has it open can read
on for ever. If another program truncates it all the same, the kernel fills what it has in memory
of the rest with zeros. A read under way, and every page that `sendfile` has only lent to a socket,
then hold bytes that were never in the file. So bytes are copied, and count only if the file was
the same after the copy was made: the new size is set before anything is filled.
"""

from __future__ import annotations

import os

from ncps.aio.nowait import bytes_now, read_now
from ncps.errors import Corrupt, unreadable


class UnchangedFile:
    """An open file, as it is now.

    :param fd: open for reading; stays the caller's.
    :param name: for messages.
    :param facts: of the file; None to look at it now.
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
        """Copy what lies at a position and is in memory, one byte at least; return how many.

        None: that would have to wait for the disk. Raises Corrupt if the file ends before, or has
        changed, Unavailable if it cannot be read now.
        """
        try:
            count = read_now(self.fd, buffer, position)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if count is not None:
            self._check(count)
        return count

    def read_now(self, count: int, position: int) -> bytes | None:
        """Return at most `count` bytes that are in memory; otherwise as `read_into`."""
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
