"""Facts about the process of the tests, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def memory_used() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connections_to(port: int) -> int:
    """Return the connections of this process to a port of 127.0.0.1."""
    ours = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            ours.add(entry.readlink().name)
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = f"0100007F:{port:04X}"
    return sum(line[2] == wanted and f"socket:[{line[9]}]" in ours for line in lines)
