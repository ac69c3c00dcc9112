"""File calls that never wait: they do what the kernel can do from memory, or nothing.

Storage may take seconds to open or to read a file, now and then or always: a network file system
in trouble, a disk that spins up. Such a call belongs into a thread; bytes in memory are read in
less time than a thread needs. The kernel tells the two apart: `openat2` with RESOLVE_CACHED (Linux
5.12), `preadv2` with RWF_NOWAIT (4.14).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
from pathlib import Path
from typing import Final

_OPENAT2: Final = 437  # on every machine
_AT_FDCWD: Final = -100
_RESOLVE_CACHED: Final = 0x20
_NOATIME: Final = getattr(os, "O_NOATIME", 0)  # to write that down may wait, too
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
"""File systems that open a file whose name they have in memory without asking another machine."""

READ_SIZE: Final = 256 * 1024
"""One read: long enough to be cheap, short enough for the reactor's thread."""


def buffer(size: int) -> memoryview:
    """Return memory to read files into, which begins at a page.

    Some processors (AMD EPYC, Zen 4) copy ten times slower where the target begins 8 or 16 bytes
    further in its page than the source does. Pages of a file begin at 0, and a large `bytearray`
    at 16.
    """
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


_buffer = buffer(READ_SIZE)
_libc = ctypes.CDLL(None, use_errno=True)
_how = (ctypes.c_uint64 * 3)(_FLAGS, 0, _RESOLVE_CACHED)
_how_size = ctypes.sizeof(_how)


def open_now(path: bytes) -> int | None:
    """Open a file for reading, without waiting; None: a thread has to find out more."""
    fd: int = _libc.syscall(_OPENAT2, _AT_FDCWD, path, _how, _how_size)
    return None if fd < 0 else fd


def read_now(fd: int, buffer: memoryview, position: int) -> int | None:
    """Copy bytes at a position that are in memory; return how many, 0 at the end of the file.

    None: a thread has to read them. Raises OSError if the file cannot be read.
    """
    try:
        return os.preadv(fd, [buffer], position, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in _NOT_NOW:
            return None
        raise


def bytes_now(fd: int, count: int, position: int) -> bytes | None:
    """Return at most `count` bytes, and at most `READ_SIZE`; for one thread. See `read_now`."""
    found = read_now(fd, _buffer[:count], position)
    return None if found is None else bytes(_buffer[:found])


def is_local(path: Path) -> bool:
    """Whether a directory is on a file system of this machine; False where that cannot be told."""
    return file_system_of(path) in _KEPT_IN_MEMORY


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Name the kind of file system that a directory is on; empty if it cannot be told."""
    try:
        place, lines = os.path.realpath(path), mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields.split(" ")[4])
        is_above = point == "/" or place == point or place.startswith(f"{point}/")
        if is_above and len(point) >= longest:  # the later one lies above the earlier one
            found, longest = rest.partition(" ")[0], len(point)
    return found
