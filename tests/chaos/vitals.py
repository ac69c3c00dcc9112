"""What a daemon's process holds, and whether it lets go of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ncps.assembly import parts
from ncps.database.local import READERS
from tests.chaos.score import Score
from tests.e2e.daemon import Daemon

NAME_THREADS = 10  # the reactor's own pool, which resolves names
THREADS_AT_MOST = 1 + parts.THREADS + READERS + 1 + NAME_THREADS
DATABASE_FILES = 3 * (1 + READERS + 1) + 1
"""File, log and index of each connection, and the lock."""

SETTLE_S = 15.0


@frozen
class Vitals:
    """What a process holds.

    :param descriptors: by kind: `socket`, `database`, `store` (NARs and unfinished ones), `other`.
    """

    descriptors: Counter[str]
    threads: int
    peak_kib: int

    @classmethod
    def of(cls, daemon: Daemon) -> Vitals:
        """Look into /proc."""
        proc = Path(f"/proc/{daemon.pid}")
        peak = re.search(r"VmHWM:\s+(\d+)", (proc / "status").read_text())
        kinds: Counter[str] = Counter()
        for link in (proc / "fd").iterdir():
            with suppress(FileNotFoundError):
                kinds[_kind(str(link.readlink()), daemon)] += 1
        return cls(kinds, len(list((proc / "task").iterdir())), int(peak[1]) if peak else 0)

    def exceeds(self, before: Vitals) -> dict[str, int]:
        """What it holds beyond what it held before and may hold, by kind.

        Connections to the database and threads are made as they are needed, up to fixed numbers.
        """
        allowed = before.descriptors | Counter(database=DATABASE_FILES)
        beyond = dict(self.descriptors - allowed)
        if self.threads > THREADS_AT_MOST:
            beyond["threads"] = self.threads - THREADS_AT_MOST
        return beyond


def _kind(target: str, daemon: Daemon) -> str:
    if target.startswith("socket:"):
        return "socket"
    if "/catalog.sqlite" in target:
        return "database"
    is_unfinished = target.startswith(str(daemon.directory / "tmp"))
    return "store" if is_unfinished or target.startswith(f"{daemon.storage}/store") else "other"


def unfinished(daemon: Daemon) -> list[Path]:
    """The unfinished files of a daemon."""
    places = (daemon.directory / "tmp", daemon.storage / "store" / "tmp")
    return [path for place in places if place.is_dir() for path in place.iterdir()]


def settle(daemon: Daemon, baseline: Vitals, score: Score, tell: Callable[[str], object]) -> None:
    """Without clients and upstreams a daemon holds no more than at the beginning."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = Vitals.of(daemon)
        beyond, left = now.exceeds(baseline), unfinished(daemon)
        if (not beyond and not left) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    tell(f"at first {baseline}, at the end {now}")
    score.blame("leaked threads", str(now), beyond.pop("threads", 0))
    score.blame("leaked descriptors", str(beyond), sum(beyond.values()))
    score.blame("leaked spools", str(left), len(left))
    score.add("peak memory of the last life, MiB", now.peak_kib // 1024)
