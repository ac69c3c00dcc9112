"""Spool files on a real temporary file that can be made full, and count what is done to them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class CountedFile:
    """A `SpoolFile` that counts `discard` and `close`, and objects to use after close."""

    def __init__(self) -> None:
        fd, name = tempfile.mkstemp(prefix="ncps-test-")
        self._fd = fd
        self.path = Path(name)
        self.discarded = 0
        self.closed = 0

    @property
    def fd(self) -> int:
        assert not self.closed, "used after close"
        return self._fd

    def discard(self) -> None:
        self.discarded += 1
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self.closed += 1
        assert self.closed == 1, "closed twice"
        os.close(self._fd)


def full_after(limit: int, code: int = errno.ENOSPC) -> Callable[..., int]:
    """An `os.pwrite` for a disk that takes no byte from offset `limit` on."""

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if offset >= limit:
            raise OSError(code, os.strerror(code))
        return _PWRITE(fd, data[: limit - offset], offset)

    return pwrite


_PWRITE = os.pwrite
