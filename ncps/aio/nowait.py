"""File calls that never wait: they succeed if the kernel has all data in memory, or do nothing.

To open or to read a file may take seconds: a network file system may hang, a disk may spin up. Such
a call must run in a thread. To read bytes from memory takes less time than a thread needs to start.
Two calls of the kernel fail instead of waiting: `openat2` with RESOLVE_CACHED (Linux 5.12), and
`preadv2` with RWF_NOWAIT (Linux 4.14).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from pathlib import Path
from typing import Final

_OPENAT2: Final = 437  # the same number on every architecture
_AT_FDCWD: Final = -100
_RESOLVE_CACHED: Final = 0x20
_NOATIME: Final = getattr(os, "O_NOATIME", 0)  # to write the time of access may wait
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | _NOATIME
_NOT_NOW: Final = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

_KEPT_IN_MEMORY: Final = frozenset(
    [
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "nilfs2",
        "overlay",
        "ramfs",
        "tmpfs",
        "vfat",
        "xfs",
        "zfs",
    ]
)
"""File systems that ask no other machine to open a file whose name is in memory."""

READ_SIZE: Final = 256 * 1024
"""Bytes of one read: enough to be cheap, few enough for the reactor's thread."""


def buffer(size: int) -> memoryview:
    """Return memory to read files into, aligned to a page.

    Some processors (AMD EPYC, Zen 4) copy ten times slower if the offset of the target in its page
    is 8 or 16 bytes larger than that of the source. The page of a file begins at offset 0, a large
    `bytearray` at 16.
    """
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


_buffer = buffer(READ_SIZE)
_libc = ctypes.CDLL(None, use_errno=True)
_how = (ctypes.c_uint64 * 3)(_FLAGS, 0, _RESOLVE_CACHED)
_how_size = ctypes.sizeof(_how)


def open_now(path: bytes) -> int | None:
    """Open a file for reading, without waiting; None: a thread must open it."""
    fd: int = _libc.syscall(_OPENAT2, _AT_FDCWD, path, _how, _how_size)
    return None if fd < 0 else fd


def read_now(fd: int, buffer: memoryview, position: int) -> int | None:
    """Copy the bytes at a position if they are in memory; return how many, 0 at the end.

    None: a thread must read them. Raises OSError if the file cannot be read.
    """
    try:
        return os.preadv(fd, [buffer], position, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in _NOT_NOW:
            return None
        raise


def bytes_now(fd: int, count: int, position: int) -> bytes | None:
    """Return at most `count` bytes, and at most `READ_SIZE`, as `read_now`; not thread-safe."""
    found = read_now(fd, _buffer[:count], position)
    return None if found is None else bytes(_buffer[:found])


def is_local(path: Path) -> bool:
    """Return whether a directory is on a file system of this machine; False if unknown."""
    return file_system_of(path) in _KEPT_IN_MEMORY


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that a directory is on; empty if unknown."""
    try:
        place, lines = os.path.realpath(path), mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields.split(" ")[4])
        is_above = point == "/" or place == point or place.startswith(f"{point}/")
        if is_above and len(point) >= longest:  # a later mount hides an earlier one
            found, longest = rest.partition(" ")[0], len(point)
    return found
