"""nginx as a load balancer, as one stands before replicas."""

from __future__ import annotations

import os
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
    upstream replicas {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_connect_timeout 1s;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


class Balancer:
    """Sends each request to the next replica; those that do not answer are passed over."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        require(program, "nginx (package nginx-light)")
        assert program is not None
        directory.mkdir(parents=True)
        self.port = free_port()
        (directory / "nginx.conf").write_text(
            CONFIGURATION.format(
                directory=directory,
                user="user root;" if os.geteuid() == 0 else "",
                servers=" ".join(f"server 127.0.0.1:{port} fail_timeout=1s;" for port in ports),
                port=self.port,
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
