"""Upstreams behind a proxy, whose names and servers only the proxy can reach."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, create_connection, socket
from typing import Any
from urllib.parse import urlsplit

from ncps.upstream.destination import BasicCredentials
from tests.e2e.daemon import fetch
from tests.integration.servers.certificates import Authority
from tests.system.origin import Origin
from tests.system.stage import Stage

HOST = "cache.example.invalid"
PASSWORD = "hunter2-of-the-proxy"
LOGIN = BasicCredentials(user="me", password=PASSWORD).header().decode()


class _Quiet(ThreadingHTTPServer):
    """Logs nothing when a client leaves."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Proxy:
    """An HTTP proxy that accepts clients with the password.

    :ivar asked: method and target of each request.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        """Begin. A target `host:port` leads to a port of this machine."""
        self.asked: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def is_let_in(self) -> bool:
                proxy.asked.append((self.command, self.path))
                if self.headers["Proxy-Authorization"] == LOGIN:
                    return True
                self.send_error(407)
                return False

            def do_CONNECT(self) -> None:
                if not self.is_let_in():
                    return
                with create_connection(("127.0.0.1", places[self.path])) as server:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=_pass_on, args=(server, self.connection))
                    back.start()
                    _pass_on(self.connection, server)
                    back.join()
                self.close_connection = True

            def do_GET(self) -> None:
                if not self.is_let_in():
                    return
                parts = urlsplit(self.path)
                url = f"http://127.0.0.1:{places[f'{parts.hostname}:80']}{parts.path}"
                answer = fetch(url)
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End; connections end with their daemon."""
        self._server.shutdown()
        self._server.server_close()


def _pass_on(source: socket, sink: socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(SHUT_RDWR)
    except OSError:
        pass


class ProxyTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.directory, "authority")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue(HOST, names=[HOST]))
        self.secured = Origin(tls=context)
        self.secured.start()
        self.addCleanup(self.secured.stop)
        self.plain = self.origin()
        self.proxy = Proxy({f"{HOST}:443": self.secured.port, f"{HOST}:80": self.plain.port})
        self.addCleanup(self.proxy.stop)

    def test_both_schemes(self) -> None:
        """NARs and narinfos come through the proxy; of https it sees only the hosts."""
        first, second = self.cache.add(), self.cache.add()
        for path, origin in ((first, self.plain), (second, self.secured)):
            origin.serve("/nix-cache-info", b"StoreDir: /nix/store\n")
            origin.serve(f"/{path.digest}.narinfo", path.narinfo())
            origin.serve(path.nar_target, path.file)
        local = self.origin()  # with the paths, ncps would ask it for them when a proxy is late
        local.serve("/nix-cache-info", b"StoreDir: /nix/store\n")
        daemon = self.make_daemon(f"http://{HOST}", f"https://{HOST}", local)
        proxy = f"http://me:{PASSWORD}@127.0.0.1:{self.proxy.port}"
        daemon.environment = {
            "http_proxy": proxy,
            "HTTPS_PROXY": proxy,
            "NIX_SSL_CERT_FILE": str(self.authority.path),
        }
        daemon.start()
        self.assert_served(daemon, first)
        self.assert_served(daemon, second)
        self.assertIn(("GET", f"http://{HOST}{first.nar_target}"), self.proxy.asked)
        self.assertIn(("CONNECT", f"{HOST}:443"), self.proxy.asked)
        self.assertLessEqual({method for method, _ in self.proxy.asked}, {"GET", "CONNECT"})
        self.assertEqual(1, self.plain.gets(first.nar_target))
        self.assertEqual(1, self.secured.gets(second.nar_target))
        self.assertNotIn(str(local.port), str(self.proxy.asked))
        self.assertNotIn(PASSWORD, daemon.log)
        for variable in ("http_proxy", "HTTPS_PROXY"):
            where = f"127.0.0.1:{self.proxy.port} (environment {variable})"
            self.wait_for_log(daemon, HOST, "is asked through the proxy", where)

    def test_wrong_password(self) -> None:
        """The log says that the proxy refuses the password, and shows none."""
        path = self.cache.add()
        proxy = f"http://me:not-{PASSWORD}@127.0.0.1:{self.proxy.port}"
        daemon = self.daemon(f"https://{HOST}", options=(f"--cache-upstream-proxy={proxy}",))
        self.assertNotEqual(200, self.narinfo(daemon, path).status)
        told = (f"the proxy 127.0.0.1:{self.proxy.port} does not connect", "407")
        self.wait_for_log(daemon, *told)
        self.assertNotIn(PASSWORD, daemon.log)
