"""Writeback: makes the kernel write a growing file while more bytes come.

By default bytes stay in memory for half a minute, so the sync at the end of a large file would wait
until the disk has written all of it.
"""

from __future__ import annotations

import ctypes
from typing import Final

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and do not wait for the end

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writeback(fd: int, position: int, count: int) -> None:
    """Begin to write a part of a file to its disk. May block while the disk is busy.

    Errors are ignored: the sync that follows reports them, and writes the rest.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, position, count, _WRITE)
