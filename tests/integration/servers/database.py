"""The common part of PostgreSQL, MariaDB and MySQL, for tests."""

from __future__ import annotations

import signal
from typing import Any, ClassVar
from uuid import uuid4

from tests.integration.servers.account import InstalledServer

USER = "test"
PASSWORD = "p%w:/@ rd"
"""With characters that mean something in URLs and in SQL."""
PASSWORD_IN_URL = "p%25w%3A%2F%40%20rd"


class DatabaseServer(InstalledServer):
    """A server of databases, with passwords, and durable but for power cuts.

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

    def stop(self) -> None:
        """End it as an administrator would, also while clients are connected."""
        self.end(self.stopping)

    def crash(self) -> None:
        """End it as a power cut would; the next start recovers."""
        self.end(self.crashing)

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        super().close()

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD_IN_URL) -> str:
        """Return the address of a database for the settings; the password is written for URLs."""
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
