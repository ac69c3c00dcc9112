"""PostgreSQL for tests: `with PostgreSQL() as server: url = server.new_database()`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.servers.database import PASSWORD, USER, DatabaseServer
from tests.services import require

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}


def _programs() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


class PostgreSQL(DatabaseServer):
    """One server, whose directory also has its socket; skips the test if not installed."""

    name = "PostgreSQL"
    user = "postgres"
    scheme = "postgresql"
    stopping = signal.SIGINT
    crashing = signal.SIGQUIT

    def __init__(self, *options: str) -> None:
        programs = _programs()
        require(programs, "PostgreSQL (package postgresql)")
        assert programs is not None
        self._programs = programs
        super().__init__("ncps-pg-", *options)
        self.lay_out(programs / "postgres", self._initialize)

    def _initialize(self, data: Path) -> None:
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        self.own(secret)
        self._account.run(
            *(self._programs / "initdb", "-D", data, "-U", USER, "-A", "scram-sha-256"),
            *("--pwfile", secret, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            cwd=self.directory,
        )

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it."""
        return self._account.start(
            *(self._programs / "postgres", "-D", "data", "-h", "127.0.0.1"),
            *("-p", str(self.port), "-k", self.directory),
            *(part for item in SETTINGS.items() for part in ("-c", "=".join(item))),
            *self.options,
            cwd=self.directory,
            log=self.log_file,
        )

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        ready = (self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(ready, check=False).returncode == 0

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on its own connection; return the rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database or "postgres",
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
