"""Installed servers, each under a user of its own if the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from tests.server import PATIENCE_S, Server, spawn

SEARCH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
"""Directories of servers' programs, which may be missing in our own path."""


class Account:
    """The user of a server: one of its own if the tests run as root, else ourselves."""

    def __init__(self, name: str) -> None:
        self.is_other = os.getuid() == 0
        self.user = pwd.getpwnam(name) if self.is_other else pwd.getpwuid(os.getuid())

    def directory(self, prefix: str) -> Path:
        """Make a directory of that user, with a path short enough for sockets in it."""
        path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Give the user a file."""
        if self.is_other:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def run(self, *command: str | Path, cwd: Path) -> None:
        """Run a command to its end; its exit code must be 0."""
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
            **self._identity,
        )
        if done.returncode:
            raise AssertionError(f"{command[0]}: {done.stdout.decode(errors='replace')}")

    def start(self, *command: str | Path, cwd: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a server; it ends when this process ends, also if this process is killed."""
        return spawn(*command, cwd=cwd, log=log, **self._identity)

    @property
    def _identity(self) -> dict[str, Any]:
        if not self.is_other:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


class InstalledServer(Server):
    """A server in a temporary directory of its own user.

    :cvar user: name of that user.
    """

    user: ClassVar[str]

    def __init__(self, prefix: str) -> None:
        self._account = Account(self.user)
        super().__init__(self._account.directory(prefix))

    def own(self, path: Path) -> None:
        """Let the server read a file that only its owner may read."""
        self._account.own(path)

    def lend(self, path: Path) -> Path:
        """Copy a file to a place that the server may read; return the copy."""
        copy = self.directory / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        self.own(copy)
        return copy

    def folder(self, name: str) -> Path:
        """Make a directory for the server in its own directory."""
        path = self.directory / name
        path.mkdir()
        self.own(path)
        return path

    def close(self) -> None:
        """End it and remove its files."""
        super().close()
        shutil.rmtree(self.directory, ignore_errors=True)
