"""The costs of a process and its children, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold any characters."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
            except OSError:  # has ended meanwhile
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a tree, with children that have ended."""
    return sum(sum(map(int, _stat(one)[11:15])) for one in tree(pid)) / _TICKS


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * _KIB
    raise KeyError(field)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a tree."""
    return sum(_status(one, "VmRSS") for one in tree(pid))


def pss_bytes(pids: Sequence[int]) -> int:
    """Return the memory of processes; a shared page counts in equal parts for each (proc(5))."""
    found = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found += int(line.split()[1]) * _KIB
    return found


def rss_peak_bytes(pid: int) -> int:
    """Return the sum of the highest resident memory of each process of a tree."""
    return sum(_status(one, "VmHWM") for one in tree(pid))


def forget_peak(pid: int) -> None:
    """Reset the peaks of memory of a tree (proc(5), clear_refs)."""
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")
