"""nginx with one worker: the anchor of all ratios, and the origin of both servers.

Its access log is off and its files are kept open, so that ncps is compared with the fastest nginx.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from tests.waiting import free_port

START_DEADLINE = 10.0
STATIC = """
    location / {{
        root {root};
    }}
"""
DAV = """
    location / {{
        root {root};
        client_max_body_size 0;
        dav_methods PUT;
        create_full_put_path on;
    }}
"""
DROP = """
    location = /nix-cache-info {{
        return 200 "StoreDir: /nix/store\\nWantMassQuery: 1\\nPriority: 10\\n";
    }}
    location / {{
        client_max_body_size 0;
        if ($request_method = PUT) {{
            return 201;
        }}
        return 404;
    }}
"""
UPLOADS = {"keep": DAV, "drop": DROP}
PROXY_STORE = """
    location / {{
        root {root};
        try_files $uri @origin;
    }}
    location @origin {{
        internal;
        open_file_cache off;
        proxy_pass {origin};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffers 16 256k;
        proxy_buffer_size 256k;
        proxy_busy_buffers_size 1m;
        proxy_temp_file_write_size 1m;
        proxy_temp_path {root}.tmp;
        proxy_store {root}$uri;
        proxy_store_access user:rw group:r all:r;
    }}
"""
CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{
    worker_connections 2048;
}}
http {{
    access_log off;
    default_type application/octet-stream;
    types {{ text/x-nix-narinfo narinfo; application/x-nix-nar nar; }}
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    {files}
    client_body_temp_path {directory}/tmp-body;
    fastcgi_temp_path {directory}/tmp-fastcgi;
    scgi_temp_path {directory}/tmp-scgi;
    uwsgi_temp_path {directory}/tmp-uwsgi;
    {upstreams}
    {servers}
}}
"""
HELD_OPEN = "open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;"


class Nginx:
    """One nginx with a directory of its own; each server listens on a free loopback port.

    :param static: directories to serve, each on one port.
    :param store_for: base URL of the origin of a server with proxy_store, on one more port.
    :param uploads: how to treat files that come by PUT, on one more port: `keep` (WebDAV) or
        `drop`; empty for no such port.
    :param hold_open: whether to keep files open; not for directories that change.
    :param certificate: files of a certificate and its key; with them every port speaks TLS.
    """

    def __init__(
        self,
        directory: Path,
        *static: Path,
        store_for: str = "",
        uploads: str = "",
        hold_open: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._certificate = certificate
        directory.mkdir(parents=True)
        self.directory = directory
        self.store = directory / "store"
        self.ports: list[int] = []
        servers = [self._server(STATIC.format(root=root)) for root in static]
        upstreams = ""
        if store_for or uploads:
            self.store.mkdir()
        if uploads:
            servers.append(self._server(UPLOADS[uploads].format(root=self.store)))
        if store_for:
            place = store_for.partition("://")[2]
            upstreams = f"upstream origin {{ server {place}; keepalive 32; }}"
            servers.append(
                self._server(PROXY_STORE.format(root=self.store, origin="http://origin"))
            )
        text = CONFIGURATION.format(
            directory=directory,
            user="user root;" if os.geteuid() == 0 else "",  # else the worker may not read
            files=HELD_OPEN if hold_open else "",
            upstreams=upstreams,
            servers="\n".join(servers),
        )
        (directory / "nginx.conf").write_text(text)
        self._process = subprocess.Popen(
            ["nginx", "-p", directory, "-e", directory / "error.log", "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            cwd=directory,
        )
        for port in self.ports:
            self._wait_for(port)

    def _server(self, locations: str) -> str:
        self.ports.append(free_port())
        listen = f"listen 127.0.0.1:{self.ports[-1]} backlog=1024"
        if self._certificate is None:
            return f"server {{ {listen}; {locations} }}"
        files = "ssl_certificate {}; ssl_certificate_key {};".format(*self._certificate)
        return f"server {{ {listen} ssl; ssl_protocols TLSv1.2 TLSv1.3; {files} {locations} }}"

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.directory / "error.log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    @property
    def pid(self) -> int:
        """The process id of the master."""
        return self._process.pid

    def url(self, number: int = 0) -> str:
        """Return the base URL of a server, without a slash at the end."""
        return f"http://127.0.0.1:{self.ports[number]}"

    def stop(self) -> None:
        """Stop nginx."""
        self._process.terminate()
        self._process.wait(10)
