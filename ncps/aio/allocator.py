"""glibc's allocator: the memory that it keeps, and the memory that it gives back to the kernel.

For every block above a threshold, such as a chunk of 256 KiB, glibc maps new memory, faults in its
pages one by one, and unmaps it at the end. That costs more than the copy into the block. A
threshold that the program sets stays fixed (mallopt(3)). Other modules limit the number of such
chunks.

By itself glibc gives back only memory at the end of the heap. The freed memory of a thousand
connections lies before the end and would stay resident for ever, so ncps gives it back regularly.
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
"""Free bytes at the end of the heap that glibc does not give back."""

GIVE_BACK_S = 30.0
"""Seconds between two attempts to give memory back."""
GIVE_BACK_FROM = 96 * 1024 * 1024
"""Resident bytes below which the gain is not worth the page faults that follow."""


def keep_large_blocks() -> bool:
    """Set both thresholds; return whether the allocator accepted them. Idempotent.

    False where the allocator is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = (
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD),
    )
    return all(taken)


def resident_bytes() -> int:
    """Return the bytes of this process that are in RAM; 0 where the kernel does not say."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * mmap.PAGESIZE


def give_back_blocking(least: int = GIVE_BACK_FROM) -> bool:
    """Give all free pages back, if the process has more than `least` bytes in RAM.

    It takes milliseconds. Return whether the allocator gave something back.
    """
    if resident_bytes() <= least:
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
