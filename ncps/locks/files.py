"""Leases of the processes of one machine: each held lease is a file, locked by its holder.

    <directory>/<sha256 of the name>.lease    "<fence> <address>"
    <directory>/fence                         number of the last grant of any name

The kernel frees a lock (`flock`) when its process ends, in every case. So there is no time to live,
and a held lease is never lost. The holder removes its file while the file is still locked. A
process that opened the file before then has a lock on a file without a name, and opens the path
again. The next holder reuses the file of a killed process, or the next start of a process removes
it.

The directory must be local: NFS implements these locks in another way.
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
_PATIENCE_S = 0.005  # the reactor's thread waits this long if the other process waits for a core
_PAUSES = 50
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
            with suppress(OSError):  # the lock is free even if the file cannot be unlinked
                self._path.unlink()
            os.close(self._fd)
            self._fd = None
            self._released()


class FileBackend(LeaseBackend):
    """A backend with a directory of leases; each call is fast enough for the reactor's thread.

    :param directory: private and local; made if missing.
    """

    def __init__(self, directory: Path, *, address: str = "") -> None:
        self.freed = KeyedEvent()
        self._directory = directory
        self._address = address

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
            except FileNotFoundError:
                # The directory was removed; see `ncps.process.rundir`.
                self._directory.mkdir(mode=0o700, exist_ok=True)
                fd = _take(path)
            if fd is None:
                return None
            try:
                fence = self._next_fence()
                if fence is None:
                    path.unlink(missing_ok=True)
                    os.close(fd)
                    return None
                text = f"{fence} {self._address}\n".encode()
                os.pwrite(fd, text, 0)
                os.ftruncate(fd, len(text))  # not to 0 bytes first: ext4 would sync it at close
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
            if _lock(fd, fcntl.LOCK_SH):  # the file of a dead process
                return ""
            text = os.pread(fd, _LONGEST, 0)
        finally:
            os.close(fd)
        return text.decode("utf-8", "replace").partition("\n")[0].partition(" ")[2]

    def _path(self, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.lease"

    def _next_fence(self) -> int | None:
        """Return the next fence; None if another process locks the counter for too long.

        A process locks it for microseconds, unless it waits for a core. Then the attempt fails as
        if the name were taken, and is repeated in the same way.
        """
        fd = os.open(self._directory / "fence", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock_soon(fd):
                return None
            text = os.pread(fd, 32, 0)
            last = int(text) if text.isdigit() else 0
            # With the time in it, the fence grows even if the directory was removed.
            fence = max(last + 1, int(time.time() * 1e6))
            os.pwrite(fd, b"%020d" % fence, 0)
        finally:
            os.close(fd)
        return fence


def _take(path: Path) -> int | None:
    """Lock the file, and make it if it is missing; None if another process has the lock.

    Raises OSError if the file cannot be opened or locked, Unavailable if it is removed after each
    attempt.
    """
    for _ in range(_ATTEMPTS):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # `holder` locks the file of a dead process for a moment, hence the second attempt.
        if not _lock(fd, fcntl.LOCK_EX) and not _lock(fd, fcntl.LOCK_EX):
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # released and removed between the opening and the lock
    raise Unavailable(f"{path} is removed after each attempt to lock it")


def _sweep(path: Path) -> None:
    """Remove the file if its process is dead."""
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


def _lock_soon(fd: int) -> bool:
    """Lock a file that others lock for microseconds; wait up to `_PATIENCE_S`; return success."""
    for _ in range(_PAUSES):
        if _lock(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_PATIENCE_S / _PAUSES)
    return False


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
