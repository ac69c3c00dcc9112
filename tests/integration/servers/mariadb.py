"""MariaDB for tests: `with MariaDB() as server: url = server.new_database()`."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.integration.servers import process
from tests.integration.servers.postgresql import PASSWORD, PASSWORD_IN_URL, USER
from tests.services import require

_SEARCH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


class MariaDB:
    """One server, with passwords and durable but for power cuts; skips the test if not installed.

    The server's own defaults stay, such as its latin1 or case-blind collations and REPEATABLE
    READ: they are what a site has.

    :ivar options: of the next start.
    :ivar port: of 127.0.0.1; stays the same over `stop` and `start`.
    :ivar socket: path of the server's socket.
    """

    def __init__(self, *options: str) -> None:
        server = shutil.which("mariadbd", path=_SEARCH)
        install = shutil.which("mariadb-install-db", path=_SEARCH)
        require(server and install, "MariaDB (package mariadb-server)")
        assert server is not None
        assert install is not None
        self._server = server
        self.options = list(options)
        self._account = process.Account("mysql")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = process.free_port()
        self.directory = self._account.directory("ncps-maria-")
        self.socket = self.directory / "s.sock"
        # A server that starts clears up in its directory for temporary tables, whoever's they are.
        self._temporary = self.directory / "tmp"
        self._temporary.mkdir()
        self._account.own(self._temporary)
        self._account.run(
            *(install, "--no-defaults", f"--datadir={self.directory / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
            *("--skip-name-resolve", "--innodb-log-file-size=8M"),
            f"--tmpdir={self._temporary}",
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
        self._process = self._account.start(
            *(self._server, "--no-defaults", f"--datadir={self.directory / 'data'}"),
            *(f"--socket={self.socket}", f"--pid-file={self.directory / 'pid'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"),
            *("--innodb-log-file-size=8M", "--innodb-flush-method=nosync", "--skip-log-bin"),
            *("--max-connections=200", f"--tmpdir={self._temporary}"),
            *self.options,
            cwd=self.directory,
            log=self.directory / "log",
        )
        process.wait_until(self._answers, "MariaDB to start")
        self._administer(
            f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            f"CREATE USER IF NOT EXISTS {USER}@'localhost' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION",
            f"GRANT ALL ON *.* TO {USER}@'localhost' WITH GRANT OPTION",
        )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text(errors="replace"))
        return self.socket.exists() and process.listens(self.port)

    def _administer(self, *statements: str) -> None:
        import pymysql

        connection = pymysql.connect(unix_socket=str(self.socket), user="root")
        try:
            for statement in statements:
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def stop(self) -> None:
        """End it as an administrator would, whoever is connected."""
        self._end(signal.SIGTERM)

    def crash(self) -> None:
        """End it as a power cut would; the next start recovers."""
        self._end(signal.SIGKILL)

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
        return f"mysql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"ncps_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

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
            with suppress(pymysql.err.OperationalError):  # it has gone by itself
                self.execute(f"KILL {number}")
        return len(rows)
