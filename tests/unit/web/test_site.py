"""Connections and requests: their limits, their accounting and their end."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.nowait import READ_SIZE
from ncps.cache.answers import Outcome, ServedNarInfo
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.settings.schema.server import ServerSettings
from ncps.web.fast.ledger import Access
from tests.unit.web.wire import PEER, Client, Server

DIGEST = "0" * 32
PATH = f"/{DIGEST}.narinfo"
KEY = NarKey("0" * 52, "xz")


class ServerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(
            ServerSettings(
                idle_timeout_s=120.0,
                header_timeout_s=10.0,
                write_stall_timeout_s=60.0,
                max_connections=5,
            )
        )
        self.cache = self.server.cache
        self.clock = self.server.clock
        self.cache.narinfos[DIGEST] = ServedNarInfo(
            text=b"StorePath: x\n", outcome=Outcome.HIT, upstream="up.example"
        )

    def statuses(self, client: Client) -> list[int]:
        found = []
        while client.value():
            found.append(client.response().status)
        return found


class ConnectionTests(ServerTestCase):
    def test_connections_offer_the_kernel_whole_chunks(self) -> None:
        """A chunk of a NAR goes out in one call where the socket has room."""
        client = self.server.connect()
        self.assertGreaterEqual(client.SEND_LIMIT, READ_SIZE)


class DeadlineTests(ServerTestCase):
    def test_half_a_request_and_silence_is_timed_out(self) -> None:
        """A client that begins a request and falls silent is told and cut off."""
        client = self.server.connect()
        client.send(b"GET /pubkey HT")
        self.clock.advance(9.9)
        self.assertEqual(client.value(), b"")
        self.clock.advance(0.1)
        self.assertEqual(client.response().status, 408)
        self.clock.advance(2)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_trickling_head_is_timed_out(self) -> None:
        """A byte now and then does not keep an unfinished request alive."""
        client = self.server.connect()
        for byte in b"GET /pubkey HTTP/1.1\r\nX: " + b"a" * 100:
            client.send(bytes([byte]))
            self.clock.advance(0.5)
        self.assertEqual(client.response().status, 408)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_request_byte_by_byte_in_time_is_answered(self) -> None:
        """A slow but honest client is served, and the deadline is off afterwards."""
        client = self.server.connect()
        for byte in b"GET /pubkey HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
            self.clock.advance(0.2)
        self.assertEqual(client.response().status, 200)
        self.clock.advance(100)
        self.assertFalse(client.disconnecting)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_deadline_starts_with_each_request(self) -> None:
        """The second request of a connection has the whole time again."""
        client = self.server.connect()
        client.send(b"GET /pubkey HTTP/1.1\r\n")
        self.clock.advance(9)
        client.send(b"\r\nGET /pubkey HTTP/1.1\r\n")
        self.assertEqual(self.statuses(client), [200])
        self.clock.advance(9)
        client.send(b"\r\n")
        self.assertEqual(self.statuses(client), [200])
        self.clock.advance(60)
        self.assertFalse(client.disconnecting)
        client.leave()

    def test_deadline_does_not_run_while_answering(self) -> None:
        """The time the cache takes is not the client's, nor is what it sends ahead."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        client.send(b"GET /pubkey HTTP/1.1\r\n")
        self.clock.advance(100)
        gate.callback(None)
        self.assertEqual(self.statuses(client), [200])
        self.clock.advance(9.9)
        self.assertEqual(client.value(), b"")
        self.clock.advance(0.1)
        self.assertEqual(self.statuses(client), [408])
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_idle_connection_outlives_nix_and_is_closed_then(self) -> None:
        """Nix may come back after 90 seconds; nobody stays for ever."""
        client = self.server.connect()
        client.ask("/pubkey")
        self.clock.advance(95)
        client.ask("/pubkey")
        self.assertEqual(self.statuses(client), [200, 200])
        self.clock.advance(119)
        self.assertFalse(client.disconnecting)
        self.clock.advance(1)
        self.assertTrue(client.disconnecting)
        client.leave()

    def test_connection_without_a_byte_is_closed(self) -> None:
        """Somebody who connects and says nothing is not kept."""
        client = self.server.connect()
        self.clock.advance(120)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_idle_time_does_not_cut_response_still_being_read(self) -> None:
        """A slow client that still takes the last response is not idle."""
        client = self.server.connect()
        client.ask("/pubkey")
        client.dataBuffer = bytes(300 * 1024)  # type: ignore[attr-defined]
        self.clock.advance(120)
        self.assertFalse(client.disconnecting)
        client.dataBuffer = bytes(180 * 1024)  # type: ignore[attr-defined]
        self.clock.advance(120)
        self.assertFalse(client.disconnecting)
        self.clock.advance(120)
        self.assertTrue(client.disconnecting)
        self.assertEqual(self.server.reached("server-min-send-rate"), 1)
        client.leave()

    def test_response_taken_by_the_byte_is_cut(self) -> None:
        """Taking a byte now and then does not keep a connection for ever."""
        client = self.server.connect()
        client.ask("/pubkey")
        client.dataBuffer = bytes(1000)  # type: ignore[attr-defined]
        self.clock.advance(120)
        self.assertFalse(client.disconnecting)
        client.dataBuffer = bytes(999)  # type: ignore[attr-defined]
        self.clock.advance(120)
        self.assertTrue(client.disconnecting)
        client.leave()

    def test_each_response_has_its_own_time(self) -> None:
        """What was left of an earlier response is not held against the next one."""
        client = self.server.connect()
        for left in (1000, 2000):
            client.ask("/pubkey")
            client.dataBuffer = bytes(left)  # type: ignore[attr-defined]
            self.clock.advance(120)
            self.assertFalse(client.disconnecting)
        client.leave()


class LimitTests(ServerTestCase):
    def test_too_many_connections_are_refused(self) -> None:
        """Connections beyond the limit are closed at once, and counted."""
        clients = [self.server.connect() for _ in range(5)]
        self.assertIsNone(self.server.site.buildProtocol(PEER))
        self.assertEqual(self.server.sample("ncps_http_connections"), 5)
        self.assertEqual(self.server.sample("ncps_http_connections_refused_total"), 1)
        self.assertEqual(self.server.reached("server-max-connections"), 1)
        clients[0].leave()
        self.assertEqual(self.server.sample("ncps_http_connections"), 4)
        self.server.connect()

    def test_too_many_headers_are_refused(self) -> None:
        """A thousand headers are more than anybody needs; the client is told, once."""
        for split in (False, True):
            client = self.server.connect()
            head = b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n"
            for piece in head.splitlines(keepends=True) if split else [head]:
                client.send(piece)
            self.assertEqual(self.statuses(client), [431])
            client.send(b"GET /pubkey HTTP/1.1\r\n\r\n")
            self.clock.advance(2)
            self.assertEqual((client.value(), client.disconnecting), (b"", True))
            client.leave()
        self.assertEqual(self.server.reached("server-max-headers"), 2)
        self.assertEqual(self.cache.asked, [])
        self.assertEqual(self.server.timers, [])

    def test_too_large_head_is_refused(self) -> None:
        """Few headers that are long add up, wherever they are cut."""
        for split in (False, True):
            client = self.server.connect()
            head = b"GET / HTTP/1.1\r\n" + (b"X-A: " + b"b" * 1000 + b"\r\n") * 20
            for piece in head.splitlines(keepends=True) if split else [head]:
                client.send(piece)
            self.assertEqual(self.statuses(client), [431])
            client.leave()
        self.assertEqual(self.server.reached("server-max-header-size"), 2)
        self.assertEqual(self.server.timers, [])

    def test_size_and_number_of_headers_are_settings(self) -> None:
        """An operator can allow more and less than the defaults."""
        for limits, field, status in (
            (ServerSettings(max_header_size_bytes=40_000), b"X: " + b"a" * 30_000, 200),
            (ServerSettings(max_header_size_bytes=100), b"X: " + b"a" * 100, 431),
            (ServerSettings(max_headers=2), b"A: a\r\nB: b\r\nC: c", 431),
            (ServerSettings(max_headers=3), b"A: a\r\nB: b\r\nC: c", 200),
        ):
            client = Server(limits).connect()
            client.send(b"GET /pubkey HTTP/1.1\r\n" + field + b"\r\n\r\n")
            self.assertEqual(self.statuses(client), [status], limits)
            client.leave()

    def test_requests_beyond_the_limit_are_told_to_come_back(self) -> None:
        """A flood of requests is turned away with 503 and Retry-After, and ends with the flood."""
        self.server = Server(ServerSettings(max_requests=2))
        gate = self.server.cache.gate = Deferred()
        clients = [self.server.connect() for _ in range(4)]
        for client in clients:
            client.ask(PATH)
        self.assertEqual([client.value() for client in clients[:2]], [b"", b""])
        for client in clients[2:]:
            response = client.response()
            self.assertEqual((response.status, response.headers["retry-after"]), (503, "5"))
            self.assertFalse(client.disconnecting)
        self.assertEqual(self.server.reached("server-max-requests"), 2)
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(self.server.get(path).status, 200)
        clients[0].leave()
        self.assertEqual(self.server.get("/pubkey").status, 200)
        gate.callback(None)
        clients[1].response()
        self.assertEqual(self.server.site.answering, 0)

    def test_one_address_cannot_have_all_connections(self) -> None:
        """One address is bounded, others still get in, and what was closed is free again."""
        self.server = Server(ServerSettings(max_connections=5, max_connections_per_address=2))
        clients = [self.server.connect() for _ in range(2)]
        self.assertIsNone(self.server.site.buildProtocol(PEER))
        self.assertEqual(self.server.reached("server-max-connections-per-address"), 1)
        self.assertEqual(self.server.sample("ncps_http_connections_refused_total"), 1)
        other = IPv4Address("TCP", "192.0.2.2", 4711)
        self.assertIsNotNone(self.server.site.buildProtocol(other))
        clients[0].leave()
        self.server.connect()

    def test_too_long_line_is_refused(self) -> None:
        """A request line without end is not collected."""
        client = self.server.connect()
        for _ in range(3):
            client.send(b"a" * 8000)
        self.assertEqual(client.response().status, 431)
        for _ in range(100):
            client.send(b"a" * 8000)
        self.assertEqual(client.value(), b"")
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_garbage_is_400(self) -> None:
        """What is not HTTP is told so, without a traceback."""
        for data in (b"\x16\x03\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n"):
            client = self.server.connect()
            client.send(data)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 400 "), data)
            client.leave()

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Requests sent in one go are answered one after another."""
        client = self.server.connect()
        client.send(b"GET /pubkey HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n" * 2)
        self.assertEqual(self.statuses(client), [200, 404, 200, 404])
        client.leave()

    def test_pipelined_requests_wait_for_slow_answer(self) -> None:
        """An answer that takes its time is not overtaken."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        client.ask("/pubkey")
        self.assertEqual(client.value(), b"")
        gate.callback(None)
        self.assertEqual(client.response().body, b"StorePath: x\n")
        self.assertEqual(client.response().status, 200)


class BodyTests(ServerTestCase):
    """No route takes a body: it is refused before it is read."""

    def refused(self, head: bytes, body: bytes = b"") -> Client:
        client = self.server.connect()
        client.send(head + b"\r\n\r\n" + body)
        return client

    def test_put_with_body_is_405_before_body(self) -> None:
        """An upload is refused before the client has sent it, and without a 100."""
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
        """A GET has no use for a body."""
        for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            client = self.refused(b"GET /pubkey HTTP/1.1\r\n" + framing, b"hello")
            self.assertEqual(self.statuses(client), [413])
            client.leave()

    def test_body_that_follows_refusal_is_dropped(self) -> None:
        """However much a refused client sends, nothing is kept and nothing is answered."""
        client = self.refused(b"POST / HTTP/1.1\r\nContent-Length: 100000000", b"x" * 1000)
        self.assertEqual(self.statuses(client), [405])
        for _ in range(100):
            client.send(b"x" * 65536)
        client.send(b"GET /pubkey HTTP/1.1\r\n\r\n")
        self.assertEqual(client.value(), b"")
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_whole_small_body_and_next_request_are_dropped(self) -> None:
        """After a refusal nothing on the connection is trusted to be a request."""
        client = self.refused(
            b"POST / HTTP/1.1\r\nContent-Length: 3", b"abcGET /pubkey HTTP/1.1\r\n\r\n"
        )
        self.assertEqual(self.statuses(client), [405])
        client.leave()

    def test_refusal_is_accounted_for_once(self) -> None:
        """A refused request is logged and counted like any other."""
        client = self.refused(b"POST /x HTTP/1.1\r\nContent-Length: 3", b"abc")
        client.leave()
        (access,) = self.server.logged
        self.assertEqual((access.method, access.path, access.status), ("POST", "/x", 405))
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_empty_body_is_no_body(self) -> None:
        """A Content-Length of 0 asks for nothing to be read."""
        client = self.refused(b"GET /pubkey HTTP/1.1\r\nContent-Length: 0")
        self.assertEqual(self.statuses(client), [200])
        client.leave()


class AccountTests(ServerTestCase):
    def test_request_is_noted_with_all_that_the_log_tells(self) -> None:
        """One record per request says what, how much, how long, from where and for whom."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH + "?token=secret", authorization="Bearer secret")
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
        """Health checks do not drown the log."""
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
        """Metrics know routes, not paths, however many paths there are."""
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
        """A request whose client left is accounted for, as not complete."""
        self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        self.assertEqual(self.server.sample("http_server_active_requests"), 1)
        client.leave()
        self.assertEqual([access.is_complete for access in self.server.logged], [False])
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_half_a_request_is_not_logged(self) -> None:
        """What never became a request is none."""
        client = self.server.connect()
        client.send(b"GET /pubkey HTTP/1.1\r\n")
        client.leave()
        self.assertEqual(self.server.logged, [])
        self.assertEqual(self.server.sample("http_server_active_requests"), 0)

    def test_site_writes_no_log_of_its_own(self) -> None:
        """Twisted's access log, which formats a line per request, stays off."""
        self.server.site.startFactory()
        self.server.get("/pubkey")
        self.server.site.stopFactory()
        self.assertEqual(self.server.timers, [])


class DrainTests(ServerTestCase):
    def drain(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.server.site.drain(30.0))

    def test_draining_nothing_is_done_at_once(self) -> None:
        """A server without connections stops without waiting."""
        self.assertEqual(self.successResultOf(self.drain()), 0)
        self.assertEqual(self.server.timers, [])

    def test_idle_connections_close_at_once(self) -> None:
        """Who is not being served is let go."""
        client = self.server.connect()
        client.ask("/pubkey")
        done = self.drain()
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual(self.server.timers, [])

    def test_running_response_ends_and_connection_closes(self) -> None:
        """A response that is under way is completed."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        done = self.drain()
        self.assertFalse(client.disconnecting)
        gate.callback(None)
        self.assertEqual(client.response().status, 200)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.successResultOf(done), 0)

    def test_request_that_had_begun_is_answered_and_told_to_go(self) -> None:
        """A request half sent when the drain began is answered with Connection: close."""
        client = self.server.connect()
        client.send(b"GET /readyz HTTP/1.1\r\n")
        done = self.drain()
        client.send(b"\r\n")
        response = client.response()
        self.assertEqual((response.status, response.headers["connection"]), (503, "close"))
        self.assertIn(b'"service":"stopping"', response.body)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.successResultOf(done)

    def test_late_responses_are_cut(self) -> None:
        """Nobody can hold up the end for longer than the deadline."""
        self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        done = self.drain()
        self.clock.advance(29)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.assertTrue(client.disconnected)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(self.server.timers, [])

    def test_a_cut_ends_the_drain(self) -> None:
        """What is still answered then is cut at once, and counted."""
        self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        done = self.drain()
        self.server.site.cut()
        self.assertTrue(client.disconnected)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(self.server.timers, [])

    def test_leaving_is_told_and_all_is_served(self) -> None:
        """Before the drain `/readyz` alone says that clients should go elsewhere."""
        self.server.site.is_leaving = True
        client = self.server.connect()
        client.ask("/readyz")
        response = client.response()
        self.assertEqual(503, response.status)
        self.assertIn(b'"service":"stopping"', response.body)
        client.ask("/nix-cache-info")
        response = client.response()
        self.assertEqual(200, response.status)
        self.assertNotIn("connection", response.headers)
        self.assertFalse(client.disconnecting)


class ErrorTests(ServerTestCase):
    def test_unexpected_error_is_500_with_an_id(self) -> None:
        """A bug of ours tells the client nothing but where to look."""
        self.cache.narinfos[DIGEST] = ZeroDivisionError("secret")
        with capturedLogs() as events:
            response = self.server.get(PATH)
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"secret", response.body)
        request_id = response.body.decode().split()[-1]
        self.assertEqual([event["request_id"] for event in events], [request_id])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_error_outside_of_coroutines_is_500(self) -> None:
        """A page that raises at once harms only its own request."""

        def render(request: Any) -> int:
            raise ZeroDivisionError

        self.server.site.resource.render = render
        response = self.server.get("/")
        self.assertEqual(response.status, 500)
        self.assertTrue(response.body.startswith(b"internal error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cut_response_is_logged_with_its_reason(self) -> None:
        """The operator learns why a client saw a broken connection."""
        self.cache.add_nar(KEY, b"abc", Unavailable("upstream reset"), size=6)
        client = self.server.connect()
        with capturedLogs() as events:
            client.ask(f"/{KEY.url}")
        (event,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(event["reason"], "upstream reset")
