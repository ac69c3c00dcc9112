"""Unfinished files: private, on the store's own file system, so that a rename can publish them.

Every unfinished file is locked (`flock`) by the process that writes it, from before its first byte
until it is closed. By the lock `sweep` tells leftovers of a crash from files in use. A process id
would not do: containers that share a directory may have equal ones, and a system reuses them.
A sweep may run between the creation of a file and its lock; the creator notices and takes another.
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
    """An open, locked, unfinished file, 0600; meets `ncps.aio.spool.SpoolFile`.

    :param name: its path; as a text, because most are used once, for a rename.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd: int | None = fd
        self.name = name

    @property
    def path(self) -> Path:
        """Where it is until it is published."""
        return Path(self.name)

    @property
    def fd(self) -> int:
        """The descriptor, open for reading and writing."""
        assert self._fd is not None, "closed"
        return self._fd

    def write(self, data: bytes) -> None:
        """Append all of `data`. Raises OSError if it cannot."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def discard(self) -> None:
        """Unlink the file, unless it was published (renamed) meanwhile; it may stay open."""
        with suppress(OSError):  # what cannot be unlinked now is swept later
            self.path.unlink()

    def close(self) -> None:
        """Close the descriptor and with it give up the lock; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Temps:
    """The unfinished files of one directory; quick enough for the reactor's thread.

    :param setting: that names the directory, for messages.
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
                os.close(fd)  # a sweep was quicker and has unlinked it
        raise Unavailable(f"{self.directory} loses each new file at once")

    def name(self, kind: str) -> Path:
        """Return a path that no file has; a sweep removes a file there that is not locked."""
        return Path(self._name(kind))

    def _name(self, kind: str) -> str:
        return f"{self._prefix}{kind}-{os.getpid()}-{secrets.token_hex(8)}"

    def sweep(self, age_s: float = 0.0) -> int:
        """Remove files that dead processes left behind; return their number.

        Files with other names stay. Raises Unavailable if the directory cannot be read.

        :param age_s: seconds since a file was last touched. Files of `name` have no lock for a
            moment; while other processes run, a positive age keeps such files.
        """
        before = time.time() - age_s
        with reading(str(self.directory)):
            paths = [path for path in self.directory.iterdir() if _OURS.fullmatch(path.name)]
        return sum(self._sweep(path) for path in paths if not age_s or _changed(path) < before)

    def _sweep(self, path: Path) -> bool:
        try:
            fd = _open_for_lock(path)
        except OSError:  # gone meanwhile, or not ours
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
        """Make the directory again if something has removed it; return whether that was so.

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
    """Return when a file was last changed, renamed or linked: a time that no program can set."""
    try:
        return path.lstat().st_ctime
    except OSError:  # gone meanwhile
        return math.inf


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_for_lock(path: Path) -> int:
    """Open for writing where allowed (locks over NFS need that), else for reading."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:  # read-only already: it was just about to be published
        return os.open(path, os.O_RDONLY | flags)
