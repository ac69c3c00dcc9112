"""Unfinished files: private, on the store's own file system, so that a rename can publish them.

The process that writes an unfinished file locks it (`flock`) from before its first byte until it
closes it. So `sweep` can distinguish files in use from remains of a crash. A process id would not
do: containers that share a directory may have equal ones, and a system reuses them. If a sweep runs
between the creation of a file and its lock, the creator notices that and makes another file.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from ncps.aio.places import remedy
from ncps.errors import StorageFull, Unavailable
from ncps.storage.os_errors import reading, writing

_OURS = re.compile(r"(?:spool|temp)-[0-9]+-[0-9a-f]{16}")
_ATTEMPTS = 100


class TempFile:
    """An open, locked, unfinished file, 0600; implements `ncps.aio.spool_file.SpoolFile`.

    :param name: its path; a text, because most paths are used only once, for a rename.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd: int | None = fd
        self.name = name

    @property
    def path(self) -> Path:
        """The path of the file until it is published."""
        return Path(self.name)

    @property
    def fd(self) -> int:
        """The descriptor, open for reading and writing."""
        assert self._fd is not None, "closed"
        return self._fd

    def write(self, data: bytes) -> None:
        """Append all of `data`. Raises OSError if that fails."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def discard(self) -> None:
        """Unlink the file, unless it has been published (renamed); it may stay open."""
        with suppress(OSError):  # a later sweep removes it
            self.path.unlink()

    def close(self) -> None:
        """Close the descriptor, which also releases the lock; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Temps:
    """The unfinished files of one directory; fast enough for the reactor's thread.

    :param setting: the setting that names the directory, for messages.
    """

    def __init__(self, directory: Path, setting: str = "cache-temp-path") -> None:
        self.directory = directory
        self._prefix = f"{directory}/"
        self._setting = setting

    def create(self, kind: str = "spool") -> TempFile:
        """Open a new file.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.

        :param kind: "spool" for a download, "temp" for a short-lived copy.
        """
        with writing(self._prefix[:-1]):
            for _ in range(_ATTEMPTS):
                name = self._name(kind)
                fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                if _lock(fd) and os.fstat(fd).st_nlink:
                    return TempFile(fd, name)
                os.close(fd)  # a sweep has unlinked it before the lock
        raise Unavailable(f"{self.directory} loses each new file immediately")

    def name(self, kind: str) -> Path:
        """Return a path that no file has; a sweep removes a file there unless it is locked."""
        return Path(self._name(kind))

    def _name(self, kind: str) -> str:
        return f"{self._prefix}{kind}-{os.getpid()}-{secrets.token_hex(8)}"

    def sweep(self, age_s: float = 0.0) -> int:
        """Remove files that dead processes left behind; return their number.

        Files with other names stay. Raises Unavailable if the directory cannot be read.

        :param age_s: keep files that changed within the last `age_s` seconds. New files of `name`
            have no lock for a moment; use this while other processes run.
        """
        before = time.time() - age_s
        with reading(str(self.directory)):
            paths = [path for path in self.directory.iterdir() if _OURS.fullmatch(path.name)]
        return sum(self._sweep(path) for path in paths if not age_s or _changed(path) < before)

    def _sweep(self, path: Path) -> bool:
        try:
            fd = _open_for_lock(path)
        except OSError:  # the file has gone, or belongs to another user
            return False
        try:
            if not _lock(fd):
                return False
            path.unlink()
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def mend(self) -> bool:
        """Make the directory again if it was removed; return whether it was.

        Do not make its parent: a disk may not be mounted. Raises StorageFull if nothing may be
        written, Unavailable if it fails now.
        """
        with writing(str(self.directory)):
            if self.directory.is_dir():
                return False
            self.directory.mkdir(0o700)
        return True

    def probe(self) -> None:
        """Write a file and remove it again.

        Raises StorageFull if nothing may be written, Unavailable if it fails now.
        """
        try:
            self._probe()
        except (StorageFull, Unavailable) as error:
            way = remedy(self._setting, error.__cause__)
            raise type(error)(f"{self._setting}: {error}; {way}") from error

    def _probe(self) -> None:
        temp = self.create("temp")
        try:
            with writing(str(self.directory)):
                temp.write(b"probe\n")
                os.fsync(temp.fd)
        finally:
            temp.discard()
            temp.close()


def _changed(path: Path) -> float:
    """Return when a file was last changed, renamed or linked; programs cannot set this time."""
    try:
        return path.lstat().st_ctime
    except OSError:  # the file has gone
        return math.inf


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_for_lock(path: Path) -> int:
    """Open for writing if allowed, because locks over NFS need that; else for reading."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:  # read-only already: its writer was about to publish it
        return os.open(path, os.O_RDONLY | flags)
