"""Redis for tests: `with Redis() as server: server.port`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.servers import process
from tests.services import require


class Redis:
    """One server that keeps nothing on disk; skips the test where it is not installed.

    :param lines: of its configuration file.
    :ivar port: of 127.0.0.1; stays the same over `kill` and `start`.
    """

    def __init__(self, *lines: str, sentinel: bool = False) -> None:
        program = shutil.which("redis-server")
        require(program, "Redis (package redis-server)")
        assert program is not None
        self._program = program
        self._account = process.Account("nobody")
        self._process: subprocess.Popen[bytes] | None = None
        self._is_sentinel = sentinel
        self.port = process.free_port()
        self.directory = self._account.directory("ncps-redis-")
        self.configure(*lines)

    def configure(self, *lines: str) -> None:
        """Replace the configuration; the next start reads it."""
        path = self.directory / "redis.conf"
        common = () if any("tls-port" in line for line in lines) else (f"port {self.port}",)
        keeping = () if self._is_sentinel else ('save ""', "appendonly no")
        path.write_text("\n".join(("bind 127.0.0.1", *common, *keeping, *lines, "")))
        path.chmod(0o600)
        self._account.own(path)

    def lend(self, path: Path) -> Path:
        """Copy a file to where the server may read it; return the copy."""
        copy = self.directory / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        self._account.own(copy)
        return copy

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

    def start(self) -> None:
        """Start it and wait until it listens."""
        mode = ("--sentinel",) if self._is_sentinel else ()
        self._process = self._account.start(
            *(self._program, self.directory / "redis.conf", *mode),
            cwd=self.directory,
            log=self.directory / "log",
        )
        process.wait_until(self._listens, "Redis to start")

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text(errors="replace"))
        return process.listens(self.port)

    def kill(self) -> None:
        """End it at once; all it knew is gone."""
        if self._process is not None:
            process.end(self._process, signal.SIGKILL)
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
        self.kill()
        process.remove(self.directory)

    def say(self, *words: str, password: str = "") -> str:
        """Run a command as the administrator, on its own connection; return what it prints."""
        environment: Mapping[str, str] = {**os.environ, "REDISCLI_AUTH": password}
        done = subprocess.run(
            ("redis-cli", "-h", "127.0.0.1", "-p", str(self.port), "--no-auth-warning", *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=process.PATIENCE_S,
            check=True,
            env=environment if password else os.environ,
        )
        return done.stdout.strip()
