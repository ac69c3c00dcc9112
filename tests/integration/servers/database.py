"""The common part of PostgreSQL, MariaDB and MySQL, for tests."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from tests.integration.servers.account import InstalledServer
from tests.services import cache_directory

USER = "test"
PASSWORD = "p%w:/@ rd"
"""Has characters with a meaning in URLs and in SQL."""
PASSWORD_IN_URL = "p%25w%3A%2F%40%20rd"


class DatabaseServer(InstalledServer):
    """A server of databases, with passwords, durable except at a loss of power.

    :cvar scheme: of its URLs.
    :cvar stopping: signal by which an administrator ends it, also while clients are connected.
    :cvar crashing: signal that ends it as a power cut would; the next start recovers.
    :ivar options: of the next start.
    """

    scheme: ClassVar[str]
    stopping: ClassVar[signal.Signals]
    crashing: ClassVar[signal.Signals]

    def __init__(self, prefix: str, *options: str) -> None:
        super().__init__(prefix)
        self.options = list(options)

    def lay_out(self, program: Path, initialize: Callable[[Path], None]) -> None:
        """Fill the directory `data` with the files of a new server; copy them if they exist.

        Making them takes one to four seconds of CPU time, for each process with tests.

        :param program: the server; another version, or another module of ours, makes other files.
        :param initialize: makes the files in a directory that it makes.
        """
        data = self.directory / "data"
        kept = cache_directory() / "data"
        kept.mkdir(parents=True, exist_ok=True)
        how = Path(inspect.getfile(type(self))).read_bytes()
        cause = f"{program} {program.stat().st_mtime_ns} {USER} {PASSWORD}".encode() + how
        template = kept / f"{program.name}-{hashlib.sha256(cause).hexdigest()[:16]}"
        if template.exists():
            shutil.copytree(template, data, symlinks=True)
            for directory, _, files in os.walk(data):
                for name in (".", *files):
                    self.own(Path(directory, name))
            return
        initialize(data)
        with tempfile.TemporaryDirectory(prefix="making-", dir=kept) as making:
            made = shutil.copytree(data, Path(making, "data"), symlinks=True)
            with suppress(OSError):  # another process was first
                made.rename(template)

    def stop(self) -> None:
        """Stop it as an administrator does, also while clients are connected."""
        self.end(self.stopping)

    def crash(self) -> None:
        """Kill it as a loss of power would; the next start recovers."""
        self.end(self.crashing)

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        super().close()

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD_IN_URL) -> str:
        """Return the URL of a database for the settings, with the password encoded."""
        return f"{self.scheme}://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"ncps_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on its own connection; return the rows."""
        raise NotImplementedError

    def kill_connections(self, database: str) -> int:
        """Cut every connection to a database; return how many there were."""
        raise NotImplementedError
