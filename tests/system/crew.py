"""Daemons of several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.system.life import LifeStage
from tests.system.origin import Origin
from tests.system.stage import log_lines
from tests.waiting import wait_until

SIZE = 300_000
#: Enough connections that workers get several each.
MANY = 60
PATIENT = ("--cache-upstream-idle-timeout", "60s")
WORKER = "ncps worker "
START_DEADLINE = 120.0  # seconds for the start of several Python processes on a busy machine


def children(pid: int) -> list[int]:
    """Return the process ids of the workers of a supervisor; none if it is gone."""
    return [child for child in all_children(pid) if name_of(child).startswith(WORKER)]


def all_children(pid: int) -> list[int]:
    """Return the process ids of the children of a process; none if it is gone."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []


def name_of(pid: int) -> str:
    """Return the name of a process in `ps`; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def number_of(pid: int) -> int:
    """Return the number in the name of a worker."""
    return int(name_of(pid).removeprefix(WORKER))


def nursery_of(pid: int) -> int:
    """Return the process id of the nursery of a supervisor."""
    (found,) = [child for child in all_children(pid) if name_of(child) == "ncps nursery"]
    return found


def shared_bytes(pid: int) -> int:
    """Return the bytes of a process that it shares with others and that are in no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("Shared_Dirty:")]
    return int(found) * 1024


def is_alive(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class WorkersStage(LifeStage):
    """Daemons of several processes."""

    def crew(
        self, upstream: Origin, count: int = 3, options: Sequence[str] = ()
    ) -> tuple[Daemon, list[int]]:
        """Return a daemon that can serve, and the process ids of its workers."""
        daemon = self.make_daemon(upstream, options=["--workers", str(count), *options])
        daemon.start(deadline=START_DEADLINE)
        self.wait_until_all_serve(daemon)
        workers = children(daemon.pid)
        self.assertEqual(count, len(workers))
        return daemon, workers

    def wait_until_all_serve(self, daemon: Daemon) -> None:
        """Wait until the supervisor says that all workers serve."""
        wait_until(
            lambda: "workers on http" in daemon.log or "workers on unix" in daemon.log,
            "all workers to serve",
            deadline=START_DEADLINE,
            daemon=daemon,
        )

    def wait_for_starts(self, daemon: Daemon, count: int) -> None:
        """Wait until `count` workers have begun to serve, in total."""
        wait_until(
            lambda: len(self.starts(daemon)) >= count,
            "a start",
            deadline=START_DEADLINE,
            daemon=daemon,
        )

    def starts(self, daemon: Daemon) -> list[dict[str, object]]:
        """Return the lines by which workers say that they serve."""
        return [line for line in log_lines(daemon) if " serves test on " in line["message"]]

    def wait_until_gone(self, pids: list[int], why: str) -> None:
        """Wait until none of these processes lives."""
        wait_until(lambda: not any(map(is_alive, pids)), why)

    def ask_until_served_by(
        self, daemon: Daemon, workers: set[int], ask: Callable[[], object], since: int = 0
    ) -> None:
        """Send requests until the log has answers of these workers; it is written in batches.

        Of workers without a connection the fastest one accepts the next.

        :param since: line of the log to begin at.
        """

        def found() -> set[int]:
            lines = [line for line in log_lines(daemon)[since:] if "duration_ms" in line]
            return {line["worker"] for line in lines if line["status"] == 200}

        def has_asked() -> bool:
            ask()
            return workers <= found()

        wait_until(has_asked, f"answers of {workers}", daemon=daemon)
