"""A part of a core for each process, so that the clients beside them have cores of their own.

On a machine with two cores, two processes that use them whole leave none for the clients. Processes
that may use a part of a core each show how their rate grows with their number all the same. The
kernel's CPU controller sets the part: cpu.cfs_quota_us of cgroup v1, or cpu.max of cgroup v2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PERIOD_US: Final = 5_000
"""A short period: a process that has used its part waits for the rest of it."""

_ROOT: Final = Path("/sys/fs/cgroup")
_VERSION_1: Final = _ROOT / "cpu"


@contextmanager
def limited(pids: Sequence[int], part: float) -> Iterator[None]:
    """Let each process use this part of a core, with the children that it starts from now on.

    Raises OSError if the kernel has no CPU controller, or if the user may not make groups.
    """
    groups: list[Path] = []
    try:
        for pid in pids:
            groups.append(_group(f"ncps-benchmark-{os.getpid()}-{pid}", part))
            (groups[-1] / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            _remove(group)


def _group(name: str, part: float) -> Path:
    quota_us = round(part * PERIOD_US)
    if _VERSION_1.is_dir():
        group = _VERSION_1 / name
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        return group
    (_ROOT / "cgroup.subtree_control").write_text("+cpu")
    group = _ROOT / name
    group.mkdir()
    (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    return group


def _remove(group: Path) -> None:
    """Give the processes of a group their cores again."""
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()
