"""The limits of a connection: deadlines, sizes and numbers."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from ncps.aio.nowait import READ_SIZE
from ncps.nix.narurl import NarKey
from ncps.settings.schema.server import ServerSettings
from tests.unit.web.wire import DIGEST, PEER, Server, ServerTestCase

PATH = f"/{DIGEST}.narinfo"
KEY = NarKey("0" * 52, "xz")


class ConnectionTests(ServerTestCase):
    def test_connections_offer_the_kernel_whole_chunks(self) -> None:
        """A chunk of a NAR is sent in one call if the socket has room."""
        client = self.server.connect()
        self.assertGreaterEqual(client.SEND_LIMIT, READ_SIZE)

    def test_a_head_is_one_piece(self) -> None:
        """The transport does work for each piece."""
        client = self.server.connect()
        pieces: list[bytes] = []
        self.patch(client, "write", pieces.append)
        self.patch(client, "writeSequence", pieces.extend)
        client.send(b"HEAD /pubkey HTTP/1.1\r\nHost: x\r\n\r\n")
        (head,) = pieces
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        self.assertIn(b"\r\nContent-Type: text/plain", head)
        self.assertTrue(head.endswith(b"\r\n\r\n"), head)
        client.leave()


class DeadlineTests(ServerTestCase):
    def test_half_a_request_and_silence_is_timed_out(self) -> None:
        """A client that stops in the middle of a head gets 408 and is cut off."""
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
        """Single bytes do not keep an unfinished request alive."""
        client = self.server.connect()
        for byte in b"GET /pubkey HTTP/1.1\r\nX: " + b"a" * 100:
            client.send(bytes([byte]))
            self.clock.advance(0.5)
        self.assertEqual(client.response().status, 408)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_request_byte_by_byte_in_time_is_answered(self) -> None:
        """A slow client is served, and the deadline then stops."""
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
        """The second request of a connection has the full time again."""
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
        """Neither the time of an answer counts nor bytes that come early."""
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
        """Nix may reuse it after 90 seconds; later it is closed."""
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
        """A client that sends nothing is not kept."""
        client = self.server.connect()
        self.clock.advance(120)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.server.timers, [])

    def test_idle_time_does_not_cut_response_still_being_read(self) -> None:
        """A slow client that is still reading is not idle."""
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
        """A client that reads single bytes does not keep its connection."""
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
        """Unsent bytes of an earlier response do not count for the next one."""
        client = self.server.connect()
        for left in (1000, 2000):
            client.ask("/pubkey")
            client.dataBuffer = bytes(left)  # type: ignore[attr-defined]
            self.clock.advance(120)
            self.assertFalse(client.disconnecting)
        client.leave()


class LimitTests(ServerTestCase):
    def test_too_many_connections_are_refused(self) -> None:
        """Further connections are closed immediately, and counted."""
        clients = [self.server.connect() for _ in range(5)]
        self.assertIsNone(self.server.site.buildProtocol(PEER))
        self.assertEqual(self.server.sample("ncps_http_connections"), 5)
        self.assertEqual(self.server.sample("ncps_http_connections_refused_total"), 1)
        self.assertEqual(self.server.reached("server-max-connections"), 1)
        clients[0].leave()
        self.assertEqual(self.server.sample("ncps_http_connections"), 4)
        self.assertEqual(self.server.sample("ncps_worker_connections_most"), 4)
        self.server.connect()

    def test_too_many_headers_are_refused(self) -> None:
        """A client with a thousand headers is refused, once."""
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
        """A few long headers are too large together, in any pieces."""
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
        """An operator can change the defaults."""
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
        """Further requests get 503 with Retry-After until others end."""
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
        """One address has a limit, and others are served."""
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
        """An endless request line is not collected."""
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
        """Bytes that are not HTTP get 400, without a traceback."""
        for data in (b"\x16\x03\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n"):
            client = self.server.connect()
            client.send(data)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 400 "), data)
            client.leave()

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Requests in one piece are answered in their order."""
        client = self.server.connect()
        client.send(b"GET /pubkey HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n" * 2)
        self.assertEqual(self.statuses(client), [200, 404, 200, 404])
        client.leave()

    def test_pipelined_requests_wait_for_slow_answer(self) -> None:
        """No answer overtakes a slow one."""
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        client.ask("/pubkey")
        self.assertEqual(client.value(), b"")
        gate.callback(None)
        self.assertEqual(client.response().body, b"StorePath: x\n")
        self.assertEqual(client.response().status, 200)
