"""MySQL for tests: `with MySQL() as server: url = server.new_database()`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.servers.mysql_protocol import MySQLProtocolServer
from tests.services import cache_directory, require, unpacked

TREE = "mysql-sid"


class MySQL(MySQLProtocolServer):
    """One server from a tree of `aptroot.sh`; skips the test without the tree.

    The server runs as the user who runs the tests, who may have the tree to himself. Its own
    defaults stay, passwords by caching_sha2_password and a certificate of its own among them.
    """

    name = "MySQL"
    user = "root"

    def __init__(self, *options: str) -> None:
        loader = unpacked(TREE, "usr/sbin/mysqld", "usr/lib/mysql/private")
        require(loader, "MySQL (see .ci/run)")
        super().__init__("ncps-mysql-", *options)
        root = cache_directory() / TREE
        self._command = (
            *(part.format(applet="mysqld") for part in loader),
            *self._common_options(),
            *(f"--user={self._account.user.pw_name}", f"--basedir={root / 'usr'}"),
            *(f"--lc-messages-dir={root / 'usr/share/mysql'}", "--mysqlx=OFF"),
            *(f"--plugin-dir={root / 'usr/lib/mysql/plugin'}", "--innodb-redo-log-capacity=16M"),
            f"--secure-file-priv={self._temporary}",
        )
        self.lay_out(root / "usr/sbin/mysqld", self._initialize)

    def _initialize(self, data: Path) -> None:
        self._account.run(
            *(*self._command, f"--datadir={data}", "--initialize-insecure"), cwd=self.directory
        )
        # Each server makes a name of its own.
        (data / "auto.cnf").unlink()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it."""
        return self._account.start(
            *self._command, *self.options, cwd=self.directory, log=self.log_file
        )
