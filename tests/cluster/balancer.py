"""nginx as a load balancer before replicas."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.integration.servers.account import SEARCH
from tests.server import Server, spawn
from tests.services import require

CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    {body}
}}
"""


def documented(page: Path = Path(__file__).parents[2] / "docs" / "high-availability.md") -> str:
    """Return the configuration in the documentation."""
    return page.read_text().partition("```nginx\n")[2].partition("```")[0]


class Balancer(Server):
    """Sends each request to the next replica, by the configuration in the documentation."""

    name = "nginx"

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        program = shutil.which("nginx", path=SEARCH)
        require(program, "nginx (package nginx-light)")
        assert program is not None
        self._program = program
        directory.mkdir(parents=True)
        super().__init__(directory)
        body, count = re.subn(r"server 10\.[0-9.:]+", "server {}", documented())
        if count != len(ports):
            raise AssertionError(f"{count} replicas in the documentation")
        body = body.replace("{}", "127.0.0.1:{}").replace("listen 80;", "listen 127.0.0.1:{};")
        for port in (*ports, self.port):
            body = body.replace("127.0.0.1:{}", f"127.0.0.1:{port}", 1)
        (directory / "nginx.conf").write_text(
            CONFIGURATION.format(
                directory=directory,
                user="user root;" if os.geteuid() == 0 else "",
                body=body,
            )
        )

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it."""
        return spawn(
            *(self._program, "-p", self.directory, "-e", self.directory / "error.log"),
            *("-c", "nginx.conf"),
            cwd=self.directory,
            log=self.log_file,
        )

    def close(self) -> None:
        """End it with its workers, which a killed master would leave."""
        self.end(signal.SIGTERM)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"
