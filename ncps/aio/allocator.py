"""glibc's allocator: the memory that it keeps, and the memory that it gives back to the kernel.

For every block above a threshold, such as a chunk of 256 KiB, glibc maps memory anew, faults in its
pages one by one, and unmaps it at the end. That costs more than the copy into it. A threshold that
the program sets stays fixed (mallopt(3)). How many such chunks exist is bounded elsewhere.

By itself glibc gives back only memory at the end of the heap. The memory of a thousand connections
lies in between when it is free and would stay resident for good, so ncps gives it back now and
then.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD = 32 * 1024 * 1024
"""The largest value glibc takes on 64-bit machines."""
TRIM_THRESHOLD = 64 * 1024 * 1024
"""Bytes at the end of the heap that stay ours when they are free."""

GIVE_BACK_S = 30.0
"""Seconds between two looks for memory to give back."""
GIVE_BACK_FROM = 96 * 1024 * 1024
"""Resident bytes below which that is not worth the page faults that follow."""


def keep_large_blocks() -> bool:
    """Return whether the allocator took it; False where it is not glibc's. Idempotent."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = (
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD),
    )
    return all(taken)


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM; 0 where the kernel does not tell."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * mmap.PAGESIZE


def give_back_blocking(least: int = GIVE_BACK_FROM) -> bool:
    """Give back all pages that are wholly free, if the process has more than `least` bytes.

    Takes milliseconds, for a thread. Return whether the allocator gave something back.
    """
    if resident_bytes() <= least:
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
