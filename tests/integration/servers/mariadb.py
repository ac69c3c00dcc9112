"""MariaDB for tests: `with MariaDB() as server: url = server.new_database()`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.integration.servers.account import SEARCH
from tests.integration.servers.mysql_protocol import MySQLProtocolServer
from tests.services import require


class MariaDB(MySQLProtocolServer):
    """One server; skips the test if it is not installed.

    The server keeps its own defaults, such as its latin1 or case-blind collations and REPEATABLE
    READ, because sites have them.
    """

    name = "MariaDB"
    user = "mysql"

    def __init__(self, *options: str) -> None:
        server = shutil.which("mariadbd", path=SEARCH)
        install = shutil.which("mariadb-install-db", path=SEARCH)
        require(server and install, "MariaDB (package mariadb-server)")
        assert server is not None
        assert install is not None
        self._program = server
        self._install = install
        super().__init__("ncps-maria-", *options)
        self.lay_out(Path(server), self._initialize)

    def _initialize(self, data: Path) -> None:
        self._account.run(
            *(self._install, "--no-defaults", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
            *("--skip-name-resolve", "--innodb-log-file-size=8M"),
            f"--tmpdir={self._temporary}",
            cwd=self.directory,
        )

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it."""
        return self._account.start(
            *(self._program, *self._common_options(), "--innodb-log-file-size=8M"),
            *self.options,
            cwd=self.directory,
            log=self.log_file,
        )
