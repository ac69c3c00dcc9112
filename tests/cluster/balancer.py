"""nginx as a load balancer, as one stands before replicas."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import free_port
from tests.integration.servers import process
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
    """The configuration that the documentation gives."""
    return page.read_text().partition("```nginx\n")[2].partition("```")[0]


class Balancer:
    """Sends each request to the next replica, by the configuration in the documentation."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        require(program, "nginx (package nginx-light)")
        assert program is not None
        directory.mkdir(parents=True)
        self.port = free_port()
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
        self._process = subprocess.Popen(
            [program, "-p", directory, "-e", directory / "error.log", "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            cwd=directory,
        )
        process.wait_until(lambda: process.listens(self.port), "nginx to start")

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)
