"""The costs of a process and its children, from /proc (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024
IDLE_S = 0.4
DEADLINE_S = 120.0


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


def wait_until_idle(pid: int) -> None:
    """Wait until a tree has used no processor time for `IDLE_S`, so all its work is done.

    Raises AssertionError if that takes longer than `DEADLINE_S`.
    """
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(IDLE_S)
        if cpu_seconds(pid) - before <= 1 / _TICKS:
            return
    raise AssertionError(f"process {pid} is not idle after {DEADLINE_S:g} s")


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
