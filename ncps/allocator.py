"""Tell glibc's allocator to keep large blocks instead of giving each back to the kernel.

Chunks of 256 KiB and more are above the size from which glibc maps every block anew, faults in
its pages one by one and unmaps it when it is freed, which costs more than the copy into it. A
threshold that is set stays fixed (mallopt(3)). How many such chunks exist is bounded elsewhere.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD = 32 * 1024 * 1024
"""The largest value glibc takes on 64-bit machines."""
TRIM_THRESHOLD = 64 * 1024 * 1024
"""Bytes at the end of the heap that stay ours when they are free."""


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
