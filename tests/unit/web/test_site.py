"""Connections and requests: their limits, their records and their end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from tests.unit.web.wire import DIGEST, ServerTestCase

PATH = f"/{DIGEST}.narinfo"
KEY = NarKey("0" * 52, "xz")


class DrainTests(ServerTestCase):
    def drain(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.server.site.drain(30.0))

    def test_draining_nothing_is_done_at_once(self) -> None:
        """Without connections, a stop does not wait."""
        self.assertEqual(self.successResultOf(self.drain()), 0)
        self.assertEqual(self.server.timers, [])

    def test_idle_connections_close_at_once(self) -> None:
        """A connection without a request is closed."""
        client = self.server.connect()
        client.ask("/pubkey")
        done = self.drain()
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual(self.server.timers, [])

    def test_running_response_ends_and_connection_closes(self) -> None:
        """A running response is completed."""
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
        """A half-sent request is answered with Connection: close."""
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
        """No client delays the end beyond the deadline."""
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
        """Running answers are cut immediately, and counted."""
        self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        done = self.drain()
        self.server.site.cut()
        self.assertTrue(client.disconnected)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(self.server.timers, [])

    def test_leaving_is_told_and_all_is_served(self) -> None:
        """Before the drain, only `/readyz` tells clients to turn elsewhere."""
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


class OutdatedTests(ServerTestCase):
    """Connections whose clients would no longer be accepted."""

    def test_they_end(self) -> None:
        """An idle one closes, a busy one after its answer; all others stay."""
        gate = self.cache.gate = Deferred()
        idle, busy, other = (self.server.connect() for _ in range(3))
        for client in (idle, busy):
            client.is_outdated = True  # type: ignore[attr-defined]
        idle.ask("/pubkey")
        busy.ask(PATH)
        other.ask("/pubkey")
        self.server.site.end_outdated()
        self.assertEqual(
            [True, False, False], [client.disconnecting for client in (idle, busy, other)]
        )
        gate.callback(None)
        self.assertEqual(200, busy.response().status)
        self.assertTrue(busy.disconnecting)


class ErrorTests(ServerTestCase):
    def test_unexpected_error_is_500_with_an_id(self) -> None:
        """The client gets only the number of the log line."""
        self.cache.narinfos[DIGEST] = ZeroDivisionError("secret")
        with capturedLogs() as events:
            response = self.server.get(PATH)
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"secret", response.body)
        request_id = response.body.decode().split()[-1]
        self.assertEqual([event["request_id"] for event in events], [request_id])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_error_outside_of_coroutines_is_500(self) -> None:
        """A page that raises an error affects only its own request."""

        def render(request: Any) -> int:
            raise ZeroDivisionError

        self.server.site.resource.render = render
        response = self.server.get("/")
        self.assertEqual(response.status, 500)
        self.assertTrue(response.body.startswith(b"internal error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cut_response_is_logged_with_its_reason(self) -> None:
        """The log says why a connection was cut."""
        self.cache.add_nar(KEY, b"abc", Unavailable("upstream reset"), size=6)
        client = self.server.connect()
        with capturedLogs() as events:
            client.ask(f"/{KEY.url}")
        (event,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(event["reason"], "upstream reset")
