"""The run directory: the sockets and files by which the workers of one daemon find each other.

It is private (0700), and its name is short, because a UNIX socket's path has at most 107 bytes. The
workers inherit the lock on a file in it. So another daemon can distinguish a directory in use from
that of a killed daemon.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ncps.aio.lockfile import LockFile
from ncps.errors import Refused, Unavailable

PREFIX = "ncps-run-"
LONGEST = 107
_LOCK = "lock"


@frozen
class RunPaths:
    """The paths in a run directory, by worker."""

    path: Path

    def socket(self, number: int) -> Path:
        """Return the socket on which a worker answers its siblings."""
        return self.path / f"worker-{number}.sock"

    def notices(self, number: int) -> Path:
        """Return the socket on which a worker receives notices."""
        return self.path / f"worker-{number}.notices"

    def figures(self, number: int) -> Path:
        """Return the file with the metrics of a worker's last answer."""
        return self.path / f"worker-{number}.figures"

    @property
    def leases(self) -> Path:
        """The directory of the workers' leases, which are freed when their holder dies."""
        return self.path / "leases"

    def address(self, number: int) -> str:
        """Return the address of a worker for its siblings."""
        return f"unix:{self.socket(number)}"


def ensure(path: Path) -> bool:
    """Make a run directory again if it was removed; return whether it was.

    Raises Refused if another user has a file with this name, Unavailable if it cannot be made.
    """
    try:
        path.mkdir(0o700)
    except FileExistsError:
        facts = path.lstat()
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
            return False
        raise Refused(f"{path} is not a directory of this user") from None
    except OSError as error:
        raise Unavailable(f"{path} was removed and cannot be made: {error.strerror}") from error
    return True


class RunDirectory:
    """The run directory of this daemon; the supervisor makes it."""

    def __init__(self, path: Path, lock: LockFile) -> None:
        self.path = path
        self.lock = lock

    def remove(self) -> None:
        """Remove the directory with all files, after the last worker has ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.release()


def parents(environ: Mapping[str, str]) -> list[Path]:
    """Return possible parents of a run directory, the best one first."""
    runtime, _, _ = environ.get("RUNTIME_DIRECTORY", "").partition(":")
    found = [runtime, environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108
    return [Path(name) for name in found if name.startswith("/")]


def make(candidates: Sequence[Path]) -> RunDirectory:
    """Make a run directory in the first parent where that is possible, and remove dead ones there.

    Raises Refused if there is none.

    :param candidates: see `parents`.
    """
    why = "no parent directory is known"
    for parent in candidates:
        if len(os.fsencode(parent)) + len(f"/{PREFIX}12345678/worker-256.notices") > LONGEST:
            why = f"the name {parent} is too long for sockets"
            continue
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            why = f"{parent}: {error.strerror}"
            continue
        lock = LockFile(path / _LOCK, f"the run directory {path}")
        try:
            lock.acquire()
        except Refused as error:  # the sweep of another daemon has locked it
            why = str(error)
            continue
        _sweep(parent)
        return RunDirectory(path, lock)
    raise Refused(f"there is no directory for the sockets of the workers: {why}")


def _sweep(parent: Path) -> None:
    """Remove the run directories of dead daemons of this user."""
    for path in parent.glob(f"{PREFIX}*"):
        lock = LockFile(path / _LOCK, str(path))
        with suppress(OSError, Refused):
            if path.stat().st_uid == os.getuid() and lock.path.exists():
                lock.acquire()
                shutil.rmtree(path, ignore_errors=True)
        lock.release()
