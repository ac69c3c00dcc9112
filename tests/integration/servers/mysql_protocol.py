"""The common part of MariaDB and MySQL, for tests."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

from tests.integration.servers.database import PASSWORD, USER, DatabaseServer
from tests.server import PATIENCE_S
from tests.waiting import listens, listens_at


class MySQLProtocolServer(DatabaseServer):
    """A server that PyMySQL reaches.

    :ivar socket: path of the server's socket.
    """

    scheme = "mysql"
    stopping = signal.SIGTERM
    crashing = signal.SIGKILL

    def __init__(self, prefix: str, *options: str) -> None:
        super().__init__(prefix, *options)
        self.socket = self.directory / "s.sock"
        # A starting server deletes other servers' files in its directory for temporary tables.
        self._temporary = self.folder("tmp")

    def answers(self) -> bool:
        """Return whether it accepts connections, by TCP and by its socket."""
        return listens_at(self.socket) and listens(self.port)

    def start(self, deadline: float = PATIENCE_S) -> None:
        """Start it, wait until it answers, and create the tests' user."""
        super().start(deadline)
        self._administer(
            f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            f"CREATE USER IF NOT EXISTS {USER}@'localhost' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION",
            f"GRANT ALL ON *.* TO {USER}@'localhost' WITH GRANT OPTION",
        )

    def _common_options(self) -> tuple[str, ...]:
        return (
            *("--no-defaults", f"--datadir={self.directory / 'data'}"),
            *(f"--socket={self.socket}", f"--pid-file={self.directory / 'pid'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"),
            *("--innodb-flush-method=nosync", "--skip-log-bin"),
            *("--max-connections=200", f"--tmpdir={self._temporary}"),
        )

    def _administer(self, *statements: str) -> None:
        import pymysql

        connection = pymysql.connect(unix_socket=str(self.socket), user="root")
        try:
            for statement in statements:
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on its own connection; return the rows."""
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=database,
            autocommit=True,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def kill_connections(self, database: str) -> int:
        """Cut every connection to a database; return how many there were."""
        import pymysql

        rows = self.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{database}'"
        )
        for (number,) in rows:
            with suppress(pymysql.err.OperationalError):  # it has ended by itself
                self.execute(f"KILL {number}")
        return len(rows)
