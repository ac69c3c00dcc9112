"""Leases of the processes of one machine: a file for each that is held, locked by its holder.

    <directory>/<sha256 of the name>.lease    "<fence> <address>"
    <directory>/fence                         number of the last grant of any name

The locks are the kernel's (`flock`): they go with the process however that ends, so there is no
time to live, and a lease once held is never lost. A file is removed by its holder while it is
still locked; who has opened it before that finds a lock on a file without a name, and takes the
next one. What a killed process left behind is taken by the next holder, or swept at a start.

The directory must be local: over NFS these locks are of another kind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ncps.aio.keyed import KeyedEvent
from ncps.errors import Refused, Unavailable
from ncps.locks.shared import Grant, LeaseBackend

_OURS = re.compile(r"[0-9a-f]{64}\.lease")
_ATTEMPTS = 1000
_LONGEST = 4096


class FileGrant(Grant):
    """A lease; the open file is the lock."""

    def __init__(self, path: Path, fd: int, fence: int, released: Callable[[], None]) -> None:
        self._path = path
        self._fd: int | None = fd
        self._fence = fence
        self._released = released

    @property
    def is_lost(self) -> bool:
        return False

    @property
    def fence(self) -> int:
        return self._fence

    async def give_back(self) -> None:
        if self._fd is not None:
            with suppress(OSError):  # what cannot be unlinked is free all the same
                self._path.unlink()
            os.close(self._fd)
            self._fd = None
            self._released()


class FileBackend(LeaseBackend):
    """See the module; everything here is quick enough for the reactor's thread.

    :param directory: private, local, of all processes that share the leases; made if missing.
    :param wall: seconds since 1970: numbers grow even if the directory is lost.
    """

    def __init__(
        self, directory: Path, *, address: str = "", wall: Callable[[], float] = time.time
    ) -> None:
        self.freed = KeyedEvent()
        self._directory = directory
        self._address = address
        self._wall = wall

    @property
    def trouble(self) -> str:
        return ""

    async def start(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                if _OURS.fullmatch(path.name):
                    _sweep(path)
        except OSError as error:
            raise Refused(
                f"leases cannot be kept in {self._directory}: {error.strerror}"
            ) from error

    async def stop(self) -> None:
        pass

    async def take(self, name: str) -> FileGrant | None:
        path = self._path(name)
        with _translated(path):
            try:
                fd = _take(path)
            except FileNotFoundError:  # something has removed the directory; see `siblings.rundir`
                self._directory.mkdir(mode=0o700, exist_ok=True)
                fd = _take(path)
            if fd is None:
                return None
            try:
                fence = self._next_fence()
                text = f"{fence} {self._address}\n".encode()
                os.pwrite(fd, text, 0)
                os.ftruncate(fd, len(text))  # not to nothing: ext4 would write it out at close
            except BaseException:
                os.close(fd)
                raise
        return FileGrant(path, fd, fence, lambda: self.freed.set(name))

    async def holder(self, name: str) -> str:
        path = self._path(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error
        try:
            if _lock(fd, fcntl.LOCK_SH):  # left behind by a dead process
                return ""
            text = os.pread(fd, _LONGEST, 0)
        finally:
            os.close(fd)
        return text.decode("utf-8", "replace").partition("\n")[0].partition(" ")[2]

    def _path(self, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.lease"

    def _next_fence(self) -> int:
        """Count; the lock is held for a few microseconds, so it is worth insisting."""
        fd = os.open(self._directory / "fence", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(_ATTEMPTS):
                if _lock(fd, fcntl.LOCK_EX):
                    break
            else:
                raise Unavailable(f"{self._directory}: whoever numbers leases has stopped")
            text = os.pread(fd, 32, 0)
            last = int(text) if text.isdigit() else 0
            fence = max(last + 1, int(self._wall() * 1e6))
            os.pwrite(fd, b"%020d" % fence, 0)
        finally:
            os.close(fd)
        return fence


def _take(path: Path) -> int | None:
    """Lock the file of that name, made if missing; None if somebody has it. OSError."""
    for _ in range(_ATTEMPTS):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # The second attempt is for who asked a dead holder's file, just now, who holds it.
        if not _lock(fd, fcntl.LOCK_EX) and not _lock(fd, fcntl.LOCK_EX):
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # released and removed between the opening and the lock
    raise Unavailable(f"{path} is removed again and again")


def _sweep(path: Path) -> None:
    """Remove what a dead process left behind."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if _lock(fd, fcntl.LOCK_EX) and os.fstat(fd).st_nlink:
            path.unlink()
    finally:
        os.close(fd)


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
