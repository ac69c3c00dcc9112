"""Bodies of requests, which a page reads at its pace, within limits, or not at all."""

from __future__ import annotations

import re

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred

from ncps.auth.principal import Scope
from ncps.errors import Conflict, StorageFull, Unavailable
from ncps.settings.schema.server import ServerSettings
from ncps.web.answer import TEXT, send
from ncps.web.incoming import BULK, LEAST_GATHERED, MOST_GATHERED, MOST_HELD
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond
from ncps.web.routes import Route, Verb
from tests.unit.web.wire import Client, Server, ServerTestCase

LIMITS = ServerSettings(
    receive_stall_timeout_s=60.0,
    min_receive_rate_bytes=100,
    min_send_window_s=300.0,
    max_uploads=3,
)


class BodyPage:
    """A page that reads bodies as the test says.

    :ivar before: a Deferred that the page awaits before it reads, if set.
    :ivar error: an error that the page raises after the body, if set.
    :ivar count: if set, the page asks for large pieces, as one of `count` bodies.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.before: Deferred[None] | None = None
        self.error: Exception | None = None
        self.is_cancelled = False
        self.most: int | None = None
        self.count = 0

    def route(self) -> Route:
        verb = Verb(act=self.render, scope=None, takes_body=True)
        closed = Verb(act=self.render, scope=Scope.WRITE, takes_body=True)
        return Route(
            pattern=re.compile(b"/eat"),
            label="/eat",
            verbs={b"PUT": verb, b"DELETE": closed},
            uploads={b"PUT": verb},
        )

    def render(self, request: NcpsRequest, _: object) -> int:
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        try:
            if self.before is not None:
                await self.before
            if self.count:
                request.incoming().gather(lambda: self.count)
            if self.most is not None:
                self.pieces.append(await request.incoming().read(self.most))
            else:
                async for piece in request.incoming():
                    self.pieces.append(piece)
        finally:
            self.is_cancelled = not request.incoming().is_whole
        if self.error is not None:
            raise self.error
        send(request, b"eaten\n", TEXT)


class IncomingTests(ServerTestCase):
    def setUp(self) -> None:
        self.page = BodyPage()
        self.server = Server(LIMITS, more=[self.page.route()])
        self.clock = self.server.clock

    def put(self, *lines: bytes, path: bytes = b"/eat") -> Client:
        client = self.server.connect()
        client.send(b"\r\n".join([b"PUT %b HTTP/1.1" % path, *lines]) + b"\r\n\r\n")
        return client

    def assert_ended(self, client: Client) -> None:
        """Check that the connection ends, and that nothing of it is left."""
        self.clock.advance(2)
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual([], self.server.timers)
        self.assertEqual((0, 0), (self.server.site.answering, self.server.site.receiving))

    def test_piece_by_piece(self) -> None:
        """The page gets each piece as it comes; the connection serves further requests."""
        client = self.put(b"Content-Length: 6")
        for piece in (b"abc", b"def"):
            client.send(piece)
            self.assertEqual(piece, self.page.pieces[-1])
        response = client.response()
        self.assertEqual((200, b"eaten\n"), (response.status, response.body))
        self.assertNotIn("connection", response.headers)
        client.ask("/pubkey")
        self.assertEqual(200, client.response().status)
        client.leave()
        (access, _) = self.server.logged
        self.assertEqual(("PUT", 6, True), (access.method, access.size, access.is_complete))

    def test_in_chunks_with_a_request_behind(self) -> None:
        """A body in chunks ends with its last chunk; the next request follows."""
        client = self.put(b"Transfer-Encoding: chunked")
        client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /pubkey HTTP/1.1\r\n\r\n")
        self.assertEqual([200, 200], self.statuses(client))
        self.assertEqual(b"abcde", b"".join(self.page.pieces))
        client.leave()

    def test_empty(self) -> None:
        """A body without bytes is complete immediately."""
        client = self.put(b"Content-Length: 0")
        self.assertEqual([200], self.statuses(client))
        client.leave()
        self.assertEqual(0, self.server.site.receiving)

    def test_below_upload(self) -> None:
        """The page and the log know that the path is below `/upload`."""
        client = self.put(b"Content-Length: 1", path=b"/upload/eat")
        client.send(b"a")
        self.assertEqual([200], self.statuses(client))
        client.leave()
        self.assertEqual("/upload/eat", self.server.logged[-1].route)

    def test_continue_when_the_page_reads(self) -> None:
        """A client gets 100 Continue once, when the page begins to read."""
        self.page.before = Deferred()
        client = self.put(b"Content-Length: 2", b"Expect: 100-continue")
        self.assertEqual(b"", client.value())
        self.page.before.callback(None)
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.value())
        client.clear()
        client.send(b"a")
        self.assertEqual(b"", client.value())
        client.send(b"b")
        self.assertEqual([200], self.statuses(client))
        client.leave()

    def test_refused_without_continue(self) -> None:
        """A client without the scope is refused before it sends a body."""
        client = self.server.connect()
        client.send(b"DELETE /eat HTTP/1.1\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n")
        response = client.response()
        self.assertEqual((405, "close"), (response.status, response.headers["connection"]))
        self.assertEqual([], self.page.pieces)
        self.assert_ended(client)

    def test_backpressure(self) -> None:
        """The connection stops reading while the page has enough, and then goes on."""
        self.page.before = Deferred()
        client = self.put(b"Content-Length: %d" % (2 * MOST_HELD))
        client.send(bytes(MOST_HELD - 1))
        self.assertEqual("producing", client.producerState)
        client.send(b"a")
        self.assertEqual("paused", client.producerState)
        self.page.before.callback(None)
        self.assertEqual("producing", client.producerState)
        client.send(bytes(MOST_HELD))
        self.assertEqual([200], self.statuses(client))
        self.assertEqual(2 * MOST_HELD, sum(map(len, self.page.pieces)))
        client.leave()

    def test_large_pieces(self) -> None:
        """A page can ask for large pieces, and gets the rest at the end.

        As many are read from the socket at once, until the body has ended.
        """
        self.page.count = 1
        size = MOST_GATHERED + 70_000
        client = self.put(b"Content-Length: %d" % size)
        self.assertEqual(MOST_GATHERED, client.bufferSize)
        for start in range(0, size, 65536):
            client.send(bytes(min(65536, size - start)))
        self.assertEqual([200], self.statuses(client))
        self.assertEqual([MOST_GATHERED, 70_000], [len(piece) for piece in self.page.pieces])
        self.assertEqual(FileDescriptor.bufferSize, client.bufferSize)
        client.leave()

    def test_many_bodies_gather_less(self) -> None:
        """The pieces of all bodies together are bounded, and so are waiting bytes."""
        self.page.count = BULK // LEAST_GATHERED * 10
        client = self.put(b"Content-Length: 1000000")
        client.send(bytes(LEAST_GATHERED))
        self.assertEqual([LEAST_GATHERED], [len(piece) for piece in self.page.pieces])
        client.leave()
        self.page.before = Deferred()
        client = self.put(b"Content-Length: 1000000")
        client.send(bytes(MOST_HELD))
        self.assertEqual("paused", client.producerState)
        self.page.before.callback(None)
        self.assertEqual("producing", client.producerState)
        client.leave()

    def test_fewer_bodies_later(self) -> None:
        """A paused connection with less than a piece goes on with its bytes."""
        self.page.before, self.page.count = Deferred(), 1
        client = self.put(b"Content-Length: 1000000")
        client.send(bytes(MOST_HELD))
        self.assertEqual("paused", client.producerState)
        self.page.before.callback(None)
        self.assertEqual("producing", client.producerState)
        self.assertEqual(MOST_HELD, len(self.page.pieces[-1]))
        client.leave()

    def test_silence_in_a_large_piece(self) -> None:
        """The time runs from the last byte, even if the page has not got it yet."""
        self.page.count = 1
        client = self.put(b"Content-Length: 1000000")
        for _ in range(3):
            self.clock.advance(59)
            client.send(bytes(10_000))
        self.clock.advance(59.9)
        self.assertEqual(b"", client.value())
        self.clock.advance(0.1)
        self.assertEqual([408], self.statuses(client))
        self.assertEqual(1, self.server.reached("server-receive-stall-timeout"))
        self.assert_ended(client)

    def test_trickle_in_a_large_piece(self) -> None:
        """A client that sends single bytes is cut off after the window."""
        self.page.count = 1
        client = self.put(b"Content-Length: 1000000")
        for _ in range(18):
            self.clock.advance(20)
            client.send(b"a")
        self.assertEqual([408], self.statuses(client))
        self.assertEqual(1, self.server.reached("server-min-receive-rate"))
        self.assert_ended(client)

    def test_time_of_the_page_does_not_count(self) -> None:
        """The time in which the page does not read is not the client's."""
        self.page.before = Deferred()
        client = self.put(b"Content-Length: 3")
        client.send(b"ab")
        self.clock.advance(10_000)
        self.page.before.callback(None)
        self.clock.advance(59)
        client.send(b"c")
        self.assertEqual([200], self.statuses(client))
        client.leave()

    def test_silence(self) -> None:
        """A client that stops in the middle gets an answer and is cut off."""
        client = self.put(b"Content-Length: 3")
        client.send(b"ab")
        self.clock.advance(59.9)
        self.assertEqual(b"", client.value())
        self.clock.advance(0.1)
        self.assertEqual([408], self.statuses(client))
        self.assertEqual(1, self.server.reached("server-receive-stall-timeout"))
        self.assert_ended(client)

    def test_trickle(self) -> None:
        """A client that sends single bytes is cut off after the window."""
        client = self.put(b"Content-Length: 1000000")
        for _ in range(14):
            self.clock.advance(20)
            client.send(b"a")
        self.assertEqual(b"", client.value())
        self.clock.advance(20)
        client.send(b"a")
        self.assertEqual([408], self.statuses(client))
        self.assertEqual(1, self.server.reached("server-min-receive-rate"))
        self.assert_ended(client)

    def test_steady(self) -> None:
        """A client with the least rate has no other limit of time."""
        client = self.put(b"Content-Length: 100000")
        for _ in range(49):
            self.clock.advance(20)
            client.send(bytes(2000))
        self.assertEqual(b"", client.value())
        client.send(bytes(2000))
        self.assertEqual([200], self.statuses(client))
        client.leave()

    def test_too_large(self) -> None:
        """A small body has a limit, with and without an announced length."""
        self.page.most = 4
        for framing, rest in (
            (b"Content-Length: 5", b""),
            (b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n"),
        ):
            client = self.put(framing)
            client.send(rest)
            response = client.response()
            self.assertEqual(413, response.status)
            self.assertIn(b"at most 4" if not rest else b"more than 4", response.body)
            self.assert_ended(client)

    def test_client_that_leaves(self) -> None:
        """The page ends with its client, and nothing is left."""
        client = self.put(b"Content-Length: 3")
        client.send(b"ab")
        client.leave()
        self.assertTrue(self.page.is_cancelled)
        self.assertEqual([], self.server.timers)
        self.assertEqual((0, 0), (self.server.site.answering, self.server.site.receiving))
        self.assertEqual([False], [access.is_complete for access in self.server.logged])

    def test_malformed_chunks(self) -> None:
        """Wrong chunks end the connection and the page."""
        client = self.put(b"Transfer-Encoding: chunked")
        client.send(b"3\r\nabcXX")
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertTrue(self.page.is_cancelled)
        self.assertEqual(0, self.server.site.receiving)

    def test_too_many(self) -> None:
        """Beyond the limit, a body is refused before it is read, with Retry-After."""
        clients = [self.put(b"Content-Length: 3") for _ in range(4)]
        response = clients[3].response()
        self.assertEqual((503, "5"), (response.status, response.headers["retry-after"]))
        self.assertEqual(1, self.server.reached("server-max-uploads"))
        for client in clients[:3]:
            client.send(b"abc")
            self.assertEqual([200], self.statuses(client))
            client.leave()
        self.assert_ended(clients[3])

    def test_writers_are_told_what_was_wrong(self) -> None:
        """A client that writes gets the text, unless the fault is the server's."""
        for error, status, text in (
            (Conflict("another NAR has this name"), 409, b"another NAR has this name"),
            (StorageFull("uploads fill the store"), 507, b"uploads fill the store"),
            (
                Unavailable("database at 10.0.0.1 is away"),
                503,
                b"cannot be stored or removed now\n",
            ),
            (
                Unavailable("10.0.0.1 hangs", timed_out=True),
                503,
                b"cannot be stored or removed now\n",
            ),
        ):
            self.page.error = error
            client = self.put(b"Content-Length: 1")
            client.send(b"a")
            response = client.response()
            self.assertEqual(status, response.status)
            self.assertIn(text, response.body)
            self.assertNotIn(b"10.0.0.1", response.body)
            client.leave()
