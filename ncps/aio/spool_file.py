"""The file of a spool, and how it is read: never waiting on the reactor's thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from ncps.aio.nowait import bytes_now
from ncps.errors import Unavailable


class SpoolFile(Protocol):
    """An open, empty, private file."""

    @property
    def fd(self) -> int:
        """The descriptor, open for reading and writing."""

    @property
    def path(self) -> Path:
        """Where the file lies."""

    def discard(self) -> None:
        """Unlink the file unless it was taken over (renamed) meanwhile."""

    def close(self) -> None:
        """Close the descriptor; once."""


def read_now(file: SpoolFile, count: int, position: int) -> bytes | None:
    """Return at most so many bytes that are in memory. Unavailable.

    None: a thread has to read.
    """
    try:
        data = bytes_now(file.fd, count, position)
    except OSError as error:
        raise _unreadable(error) from error
    return None if data is None else _checked(file, data, position)


def read_blocking(file: SpoolFile, count: int, position: int) -> bytes:
    """Return at most so many bytes, one at least. Unavailable."""
    try:
        data = os.pread(file.fd, count, position)
    except OSError as error:
        raise _unreadable(error) from error
    return _checked(file, data, position)


def _checked(file: SpoolFile, data: bytes, position: int) -> bytes:
    """See `ncps.aio.unchanged_file`."""
    if not data or os.fstat(file.fd).st_size < position + len(data):
        raise Unavailable("the spool has lost bytes")
    return data


def _unreadable(error: OSError) -> Unavailable:
    return Unavailable(f"the spool cannot be read: {error.strerror}")
