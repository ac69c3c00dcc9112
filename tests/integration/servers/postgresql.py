"""PostgreSQL for tests: `with PostgreSQL() as server: url = server.new_database()`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.integration.servers import process
from tests.services import require

USER = "test"
PASSWORD = "p%w:/@ rd"
"""With characters that mean something in URLs and in SQL."""
PASSWORD_IN_URL = "p%25w%3A%2F%40%20rd"


def _programs() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


class PostgreSQL:
    """One server, with passwords and durable but for power cuts; skips the test if not installed.

    :ivar options: of the next start.
    :ivar port: of 127.0.0.1; stays the same over `stop` and `start`.
    :ivar directory: holds the server's socket, too.
    """

    def __init__(self, *options: str) -> None:
        programs = _programs()
        require(programs, "PostgreSQL (package postgresql)")
        assert programs is not None
        self._programs = programs
        self.options = list(options)
        self._account = process.Account("postgres")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = process.free_port()
        self.directory = self._account.directory("ncps-pg-")
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        self._account.own(secret)
        self._account.run(
            *(programs / "initdb", "-D", "data", "-U", USER, "-A", "scram-sha-256"),
            *("--pwfile", secret, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            cwd=self.directory,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def own(self, path: Path) -> None:
        """Let the server read a file that is for its owner alone."""
        self._account.own(path)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": "200",
        }
        self._process = self._account.start(
            *(self._programs / "postgres", "-D", "data", "-h", "127.0.0.1"),
            *("-p", str(self.port), "-k", self.directory),
            *(part for item in settings.items() for part in ("-c", "=".join(item))),
            *self.options,
            cwd=self.directory,
            log=self.directory / "log",
        )
        process.wait_until(self._answers, "PostgreSQL to start")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text(errors="replace"))
        ready = (self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(ready, check=False).returncode == 0

    def stop(self) -> None:
        """End it as an administrator would, whoever is connected."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it as a power cut would; the next start recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            process.end(self._process, how)
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing, with all connections open, until `thaw`."""
        assert self._process is not None
        process.freeze(self._process)

    def thaw(self) -> None:
        """Go on."""
        assert self._process is not None
        process.thaw(self._process)

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        process.remove(self.directory)

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD_IN_URL) -> str:
        """Address of a database, for the settings; the password is written for URLs."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"ncps_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on its own connection; return the rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()

    def kill_connections(self, database: str) -> int:
        """Cut every connection to a database; return how many there were."""
        rows = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(rows)
