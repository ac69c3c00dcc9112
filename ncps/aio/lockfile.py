"""Lock files: a file that one process locks for as long as it lives, and that names the process.

The kernel keeps the lock (`flock`), so the lock ends with the process in every case. It also works
between containers, where process ids mean nothing. The text in the file is for people. The file is
never removed: a process could otherwise lock a file that other processes no longer see.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ncps.errors import Refused

MAX_TEXT = 1024


class InUse(Refused):
    """An error: another process holds the lock.

    :ivar holder: a text that names the locked thing and the process.
    """

    def __init__(self, holder: str, remedy: str) -> None:
        super().__init__(f"{holder}; {remedy}")
        self.holder = holder


class LockFile:
    """One lock file; all methods are quick, and are used at start and stop.

    :param path: of the file; its directory must exist.
    :param subject: the locked thing, for messages: "the store in /var/lib/ncps".
    :param other: the remedy for a second process: "a directory of its own".
    """

    def __init__(self, path: Path, subject: str, other: str = "a directory of its own") -> None:
        self.path = path
        self._subject = subject
        self._other = other
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor of the locked file.

        A child process that inherits it holds the lock as well. The lock is free when all of them
        have closed it or ended.
        """
        assert self._fd is not None, "not held"
        return self._fd

    def acquire(self) -> None:
        """Take the lock.

        Raises InUse, which names the holder, if another process has it; Refused if that fails, or
        if this object has it already.
        """
        if self._fd is not None:
            raise Refused(f"{self._subject} is locked by this object already")
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, _describe_self().encode(), 0)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise InUse(
                f"{self._subject} is in use by {holder} (lock file {self.path})",
                f"stop that process first, or give this one {self._other}",
            ) from None
        except OSError as error:
            os.close(fd)
            raise Refused(f"{self.path} cannot be locked: {error.strerror}") from error
        self._fd = fd

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._fd is None:
            return
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = None


def _describe_self() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"process {os.getpid()} on {socket.gethostname()}, started {now}\n"


def _holder(fd: int) -> str:
    text = os.pread(fd, MAX_TEXT, 0).decode("utf-8", "replace").partition("\n")[0]
    return text or "another process"
