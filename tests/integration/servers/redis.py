"""Redis for tests: `with Redis() as server: server.port`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from tests.integration.servers.account import InstalledServer
from tests.server import PATIENCE_S
from tests.services import require


class Redis(InstalledServer):
    """One server without files; skips the test if it is not installed.

    :param lines: of its configuration file.
    """

    name = "Redis"
    user = "nobody"

    def __init__(self, *lines: str, sentinel: bool = False) -> None:
        program = shutil.which("redis-server")
        require(program, "Redis (package redis-server)")
        assert program is not None
        self._program = program
        self._is_sentinel = sentinel
        super().__init__("ncps-redis-")
        self.configure(*lines)

    def configure(self, *lines: str) -> None:
        """Replace the configuration; the next start reads it."""
        path = self.directory / "redis.conf"
        common = () if any("tls-port" in line for line in lines) else (f"port {self.port}",)
        keeping = () if self._is_sentinel else ('save ""', "appendonly no")
        path.write_text("\n".join(("bind 127.0.0.1", *common, *keeping, *lines, "")))
        path.chmod(0o600)
        self.own(path)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it."""
        mode = ("--sentinel",) if self._is_sentinel else ()
        return self._account.start(
            *(self._program, self.directory / "redis.conf", *mode),
            cwd=self.directory,
            log=self.log_file,
        )

    def say(self, *words: str, password: str = "") -> str:
        """Run a command as the administrator, on its own connection; return its output."""
        environment: Mapping[str, str] = {**os.environ, "REDISCLI_AUTH": password}
        done = subprocess.run(
            ("redis-cli", "-h", "127.0.0.1", "-p", str(self.port), "--no-auth-warning", *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
            env=environment if password else os.environ,
        )
        return done.stdout.strip()
