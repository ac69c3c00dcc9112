"""ncps on a faulty machine: calls to its disk fail or are slow, and its clock is wrong.

    python -m tests.machines.faulty FILE ARGUMENTS-OF-NCPS...

The file is JSON and read before each call, so that a test changes the faults by writing another
file (`MachineFaults`). All file calls of ncps except those of its database use `os`, and every time
of day comes from `time.time`, so these are replaced. All processes share the kernel's clock and
disks, so these cannot have a fault for one process alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from ncps.aio import nowait


@frozen
class Failing:
    """Calls that fail from now on. Reads of files that are being written do not fail.

    :param calls: names of functions of `os`.
    :param below: only for paths with this prefix.
    :param at: only bytes from this offset on; earlier bytes can be read and written.
    """

    calls: tuple[str, ...]
    below: str
    error: int = errno.EIO
    at: int = 0


@frozen
class Slow:
    """Calls that are slow from now on, and whose files are not in the kernel's memory.

    :param calls: names of functions of `os`.
    :param below: only for paths with this prefix.
    """

    calls: tuple[str, ...]
    below: str
    seconds: float


class MachineFaults:
    """The file that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set()

    def set(self, *troubles: Failing | Slow, clock: float = 0.0) -> None:
        """Replace all faults by these.

        :param clock: seconds that are added to the time of day.
        """
        plan = [
            [each.calls, each.below, each.error, each.at]
            for each in troubles
            if isinstance(each, Failing)
        ]
        slow = [
            [each.calls, each.below, each.seconds] for each in troubles if isinstance(each, Slow)
        ]
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps({"failing": plan, "slow": slow, "clock": clock}))
        whole.replace(self.path)

    @property
    def program(self) -> tuple[str, ...]:
        """The interpreter's arguments in place of `-m ncps`."""
        return "-m", "tests.machines.faulty", str(self.path)


_READS = ("pread", "preadv")


class _Faulty:
    """Replaces calls of `os` and `time`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stat, self._time, self._readlink = os.stat, time.time, os.readlink
        self._seen: object = None
        self._plan: dict[str, Any] = {}

    @property
    def plan(self) -> dict[str, Any]:
        facts = self._stat(self._path)
        mark = facts.st_ino, facts.st_mtime_ns
        if mark != self._seen:
            with open(self._path) as file:  # noqa: PTH123 - pathlib uses what is replaced here
                self._plan = json.load(file)
            self._seen = mark  # set last: another thread that sees it must not use the old plan
        return self._plan

    def time(self) -> float:
        return self._time() + float(self.plan["clock"])

    def readable(self, name: str, where: object, offset: int, count: int) -> int:
        """Return how many bytes may be read or written. Raises OSError if the disk fails there."""
        time.sleep(self.delay(name, where))
        for calls, below, number, at in self.plan["failing"]:
            if name in calls and self._name(where).startswith(below):
                if name in _READS and self._is_written(where):
                    continue
                if offset >= at:
                    raise OSError(number, os.strerror(number))
                count = min(count, at - offset)
        return count

    def _is_written(self, where: object) -> bool:
        """Return whether a file is open for writing: the kernel's memory has its new bytes.

        A download gets its final name before clients have read all of it.
        """
        assert isinstance(where, int)
        return fcntl.fcntl(where, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY

    def delay(self, name: str, where: object) -> float:
        """Return how many seconds such a call takes."""
        found = (
            seconds
            for calls, below, seconds in self.plan["slow"]
            if name in calls and self._name(where).startswith(below)
        )
        return next(found, 0.0)

    def is_out_of_memory(self, where: object) -> bool:
        """Return whether the kernel would have to read a file from the disk."""
        return any(self.delay(name, where) for name in ("open", "pread"))

    def _name(self, where: object) -> str:
        if isinstance(where, int):
            return self._readlink(f"/proc/self/fd/{where}")
        return os.fspath(where)  # type: ignore[call-overload,no-any-return]

    def install(self) -> None:
        readable = self.readable
        pread, preadv, pwrite, write = os.pread, os.preadv, os.pwrite, os.write
        open_now = nowait.open_now

        def sick_pread(fd: int, count: int, offset: int) -> bytes:
            return pread(fd, readable("pread", fd, offset, count), offset)

        def sick_pwrite(fd: int, data: bytes, offset: int) -> int:
            return pwrite(fd, data[: readable("pwrite", fd, offset, len(data))], offset)

        def sick_write(fd: int, data: bytes) -> int:
            return write(fd, data[: readable("write", fd, 0, len(data))])

        def sick_preadv(fd: int, buffers: list[memoryview], offset: int, flags: int) -> int:
            (buffer,) = buffers
            if self.is_out_of_memory(fd):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            count = readable("preadv", fd, offset, len(buffer))
            return preadv(fd, [buffer[:count]], offset, flags)

        def sick_open_now(path: bytes) -> int | None:
            name = os.fsdecode(path)
            if self.is_out_of_memory(name):
                return None
            try:
                readable("open", name, 0, 1)
            except OSError:
                return None
            return open_now(path)

        def sick(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(where: object, *args: Any, **options: Any) -> Any:
                readable(name, where, 0, 1)
                return call(where, *args, **options)

            return instead

        os.pread, os.pwrite, os.write = sick_pread, sick_pwrite, sick_write  # type: ignore[assignment]
        os.preadv = sick_preadv  # type: ignore[assignment]
        nowait.open_now = sick_open_now
        for name in ("open", "fsync", "rename", "link", "unlink", "mkdir"):
            setattr(os, name, sick(name, getattr(os, name)))
        time.time = self.time


if __name__ == "__main__":
    _Faulty(sys.argv.pop(1)).install()
    from ncps.__main__ import main

    sys.exit(main())
