"""Requests: bodies are refused, and each request is logged and counted once."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.nix.narurl import NarKey
from ncps.web.fast.ledger import Access
from tests.unit.web.wire import DIGEST, Client, ServerTestCase

PATH = f"/{DIGEST}.narinfo"
KEY = NarKey("0" * 52, "xz")


class BodyTests(ServerTestCase):
    """Without a route for it, a body is refused before it is read."""

    def refused(self, head: bytes, body: bytes = b"") -> Client:
        client = self.server.connect()
        client.send(head + b"\r\n\r\n" + body)
        return client

    def test_put_with_body_is_405_before_body(self) -> None:
        """An upload is refused before the body, without 100 Continue."""
        client = self.refused(
            f"PUT {PATH} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1000000".encode()
        )
        response = client.response()
        self.assertEqual((response.status, response.headers["allow"]), (405, "GET, HEAD, OPTIONS"))
        self.assertEqual(response.headers["connection"], "close")
        self.assertEqual((client.value(), response.whole), (b"", True))
        self.assertFalse(client.disconnecting)
        self.clock.advance(2)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_get_with_body_is_413(self) -> None:
        """A GET has no body."""
        for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            client = self.refused(b"GET /pubkey HTTP/1.1\r\n" + framing, b"hello")
            self.assertEqual(self.statuses(client), [413])
            client.leave()

    def test_body_that_follows_refusal_is_dropped(self) -> None:
        """Bytes after a refusal are not kept and not answered."""
        client = self.refused(b"POST / HTTP/1.1\r\nContent-Length: 100000000", b"x" * 1000)
        self.assertEqual(self.statuses(client), [405])
        for _ in range(100):
            client.send(b"x" * 65536)
        client.send(b"GET /pubkey HTTP/1.1\r\n\r\n")
        self.assertEqual(client.value(), b"")
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_whole_small_body_and_next_request_are_dropped(self) -> None:
        """After a refusal, no bytes count as a request."""
        client = self.refused(
            b"POST / HTTP/1.1\r\nContent-Length: 3", b"abcGET /pubkey HTTP/1.1\r\n\r\n"
        )
        self.assertEqual(self.statuses(client), [405])
        client.leave()

    def test_refusal_is_accounted_for_once(self) -> None:
        """A refused request is logged and counted like any other."""
        client = self.refused(b"POST / HTTP/1.1\r\nContent-Length: 3", b"abc")
        client.leave()
        (access,) = self.server.logged
        self.assertEqual((access.method, access.path, access.status), ("POST", "/", 405))
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_empty_body_is_no_body(self) -> None:
        """With Content-Length 0 nothing is read."""
        client = self.refused(b"GET /pubkey HTTP/1.1\r\nContent-Length: 0")
        self.assertEqual(self.statuses(client), [200])
        client.leave()


class AccountTests(ServerTestCase):
    def test_request_is_noted_with_all_fields_of_the_log(self) -> None:
        """One record has path, size, time, outcome, upstream and client."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH + "?secret", authorization="Bearer secret")
        self.clock.advance(0.25)
        gate.callback(None)
        self.assertEqual(
            self.server.logged,
            [
                Access(
                    ended=0.25,
                    route="/{hash}.narinfo",
                    method="GET",
                    path=PATH,
                    status=200,
                    size=13,
                    elapsed=0.25,
                    is_complete=True,
                    cache="hit",
                    digest=DIGEST,
                    upstream="up.example",
                    client="192.0.2.1",
                )
            ],
        )
        client.leave()

    def test_probes_are_not_logged_but_counted(self) -> None:
        """Health checks do not fill the log."""
        for path in ("/healthz", "/readyz", "/metrics"):
            self.server.get(path)
        self.assertEqual(self.server.logged, [])
        self.assertEqual(
            self.server.sample(
                "http_server_request_duration_seconds_count",
                http_route="/healthz",
                http_request_method="GET",
                http_response_status_code="200",
            ),
            1,
        )

    def test_requests_are_counted_by_route(self) -> None:
        """Metrics have routes instead of paths."""
        for path in (PATH, f"/{'1' * 32}.narinfo", "/a", "/b"):
            self.server.get(path)
        self.server.get("/c", b"B'OGUS")
        for route, method, status, count in (
            ("/{hash}.narinfo", "GET", "200", 1),
            ("/{hash}.narinfo", "GET", "404", 1),
            ("other", "GET", "404", 2),
            ("other", "_OTHER", "404", 1),
        ):
            found = self.server.sample(
                "http_server_request_duration_seconds_count",
                http_route=route,
                http_request_method=method,
                http_response_status_code=status,
            )
            self.assertEqual(found, count, route)
        self.assertEqual(
            self.server.sample("ncps_served_bytes_total", route="/{hash}.narinfo"), 13 + 10
        )
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_client_that_left_is_logged_once(self) -> None:
        """Its request is logged as not complete."""
        self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        self.assertEqual(self.server.sample("http_server_active_requests"), 1)
        client.leave()
        self.assertEqual([access.is_complete for access in self.server.logged], [False])
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_half_a_request_is_not_logged(self) -> None:
        """An incomplete head is no request."""
        client = self.server.connect()
        client.send(b"GET /pubkey HTTP/1.1\r\n")
        client.leave()
        self.assertEqual(self.server.logged, [])
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_site_writes_no_log_of_its_own(self) -> None:
        """Twisted's access log, with a line for each request, is off."""
        self.server.site.startFactory()
        self.server.get("/pubkey")
        self.server.site.stopFactory()
        self.assertEqual(self.server.timers, [])
