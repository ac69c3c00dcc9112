"""Plain requests: answers are those of the long way, whatever a server says and in which pieces."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Answer, Client
from ncps.upstream.destination import BasicCredentials, Destination, Timeouts
from tests.fakes.metrics import series
from tests.fakes.wire import Line, Wire

BASE: Final = "http://127.0.0.1:8080"
TIMES: Final = Timeouts(connect_s=3, first_byte_s=4, nar_s=50, idle_s=20)
NAMES: Final = (b"content-type", b"x", b"etag")

ANSWERS: Final = {
    "usual": b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX: y\r\nETag: "t"\r\n\r\nabcdef',
    "no phrase": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab",
    "absent": b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "twice a header": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\r\nx: b\r\n\r\nz",
    "encodings": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: gzip\r\n"
        b"Content-Encoding: br\r\n\r\nz"
    ),
    "kept": b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nz",
    "to be closed": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
    ),
    "unknown coding": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nabc"
    ),
    "space before a colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "bare return": b"HTTP/1.1 200 OK\r\nX: y\rContent-Length: 1\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "signed": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "upgraded": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "continued at once": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    ),
    "body of no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
    "interim": b"HTTP/1.1 103 Early\r\nX: q\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz",
    "bare lines": b"HTTP/1.1 200 OK\nContent-Length: 3\nX: y\n\nabc",
    "continued": b"HTTP/1.1 200 OK\r\nX: y\r\n more\r\nContent-Length: 3\r\n\r\nabc",
    "length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
    "negative": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "until the end": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nabc",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "unchanged": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "cut in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
}


class Asker:
    """One client, and the connections that it makes."""

    def __init__(self, credentials: BasicCredentials | None = None, *, is_plain: bool) -> None:
        self.wire = Wire()
        self.metrics = Metrics()
        self.client = Client(
            self.wire,
            Destination(base_url=BASE, timeouts=TIMES, credentials=credentials),
            bounds=UpstreamsSettings(plain_requests=is_plain),
            metrics=self.metrics,
        )

    def ask(self, method: str = "GET", path: str = "/x", **extra: str) -> Deferred[Answer]:
        asking = self.client.request(method, BASE + path, headers=extra)
        return Deferred.fromCoroutine(asking)

    def line(self) -> Line:
        """Return the connection of the request: the existing one, or a new one."""
        return self.wire.accept() if self.wire.pending else self.wire.lines[-1]


class SameAnswerTests(SynchronousTestCase):
    def outcome(self, said: bytes, size: int, method: str, *, is_plain: bool) -> list[object]:
        """Return all that caller and upstream see of one answer, and of the next one."""
        asker = Asker(is_plain=is_plain)
        asking, line = asker.ask(method), asker.line()
        seen: list[object] = []
        for begin in range(0, len(said), size):
            line.say(said[begin : begin + size])
        if not asking.called:
            line.cut()
            if asker.wire.pending:
                asker.wire.accept().cut()
        ends: list[Any] = []
        asking.addBoth(ends.append)
        answer = ends.pop()
        if isinstance(answer, Failure):
            error = answer.value
            return [type(error).__name__, getattr(error, "kind", ""), line.is_up]
        seen += [answer.status, answer.encoding, answer.content_length]
        seen += [answer.values(name) for name in NAMES]
        reading = Deferred.fromCoroutine(self.read(answer))
        if not reading.called:
            line.end()
            asker.wire.advance(0)
        seen.append(self.successResultOf(reading))
        seen.append(len(asker.wire.getDelayedCalls()))
        asker.wire.advance(0)
        later = asker.ask()
        asker.line().answer(body=b"later")
        seen.append(
            self.successResultOf(Deferred.fromCoroutine(self.read(self.successResultOf(later))))
        )
        return [*seen, asker.wire.attempts]

    async def read(self, answer: Answer) -> tuple[bytes, str]:
        data = b""
        try:
            async for chunk in answer.body:
                data += chunk
        except NcpsError as error:
            return data, type(error).__name__
        return data, ""

    def test_answers_are_those_of_the_long_way(self) -> None:
        """Status, headers, body, error and the end of the connection are the same both ways."""
        for name, said in ANSWERS.items():
            for method in ("GET", "HEAD"):
                for size in (len(said), 40, 1):
                    if method == "HEAD" and not said.endswith(b"\r\n\r\n"):
                        continue  # bytes after the head: see below
                    plain = self.outcome(said, size, method, is_plain=True)
                    long = self.outcome(said, size, method, is_plain=False)
                    self.assertEqual(long, plain, f"{method} {name} in pieces of {size}")


class PlainRequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asker = Asker(is_plain=True)

    def read(self, answer: Answer) -> bytes:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in answer.body])

        return self.successResultOf(Deferred.fromCoroutine(read()))

    def requests(self) -> float:
        return series(self.asker.metrics.short_ways).get("request", 0)

    def test_requests_are_the_same(self) -> None:
        """The upstream gets the same headers both ways, in any order."""
        heads = []
        for is_plain in (True, False):
            asker = Asker(BasicCredentials(user="u", password="p"), is_plain=is_plain)
            asker.ask(path="/a/b.narinfo?c=d", range="bytes=5-")
            first, *fields = asker.line().sent.split(b"\r\n")
            heads.append([first, sorted(fields)])
        self.assertEqual(heads[1], heads[0])

    def test_an_absence_costs_no_connection(self) -> None:
        """After a 404 whose body nobody reads, the connection is kept."""
        for _ in range(3):
            asking = self.asker.ask()
            self.asker.line().answer("404 Not Found", body=b"nothing")
            self.successResultOf(asking).body.close()
        self.assertEqual((1, 3), (self.asker.wire.attempts, self.requests()))

    def test_bytes_behind_an_answer_end_the_connection(self) -> None:
        """They would count as the next answer."""
        asking, line = self.asker.ask(), self.asker.line()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nzHTTP/1.1 200 OK\r\n")
        self.assertEqual(b"z", self.read(self.successResultOf(asking)))
        self.assertTrue(line.disconnected)  # over TLS, a normal end waits for the server's

    def test_bytes_behind_an_answer_out_of_the_ordinary_end_it_too(self) -> None:
        """More bytes may follow, which would count as the next answer."""
        for name in ("body of no content", "surplus"):
            asking, line = self.asker.ask(), self.asker.line()
            line.say({**ANSWERS, "surplus": ANSWERS["chunks"] + b"HTTP/1.1 200"}[name])
            self.read(self.successResultOf(asking))
            self.assertTrue(line.disconnected, name)
            self.asker.wire.advance(0)

    def test_bytes_that_were_not_asked_for_end_the_connection(self) -> None:
        """They come between two requests, and answer neither."""
        asking, line = self.asker.ask(), self.asker.line()
        line.answer()
        self.successResultOf(asking)
        line.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(line.disconnected)
        again = self.asker.ask()
        self.asker.wire.advance(0)
        self.asker.line().answer(body=b"new")
        self.assertEqual(b"new", self.read(self.successResultOf(again)))

    def test_a_stale_connection_is_replaced(self) -> None:
        """A kept connection that breaks before the answer is replaced unnoticed."""
        asking, line = self.asker.ask(), self.asker.line()
        line.answer()
        self.successResultOf(asking)
        again = self.asker.ask()
        line.cut()
        self.asker.wire.accept().answer(body=b"new")
        self.assertEqual(b"new", self.read(self.successResultOf(again)))

    def test_a_cancelled_request_ends_its_connection(self) -> None:
        """No later request gets its answer, with either parser."""
        for said in (b"", b"HTTP/1.1 103 Early\r\n\r\n"):
            asking, line = self.asker.ask(), self.asker.line()
            line.say(said)
            asking.cancel()
            self.failureResultOf(asking)
            self.assertFalse(line.is_up)

    def test_a_late_answer_ends_its_connection(self) -> None:
        """The deadline holds with both parsers."""
        for said in (b"", b"HTTP/1.1 103 Early\r\n\r\n"):
            asking, line = self.asker.ask(), self.asker.line()
            line.say(said)
            self.asker.wire.advance(8)
            self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
            self.assertFalse(line.is_up)

    def test_one_reader_asks_again_before_the_other_returns(self) -> None:
        """The connection serves the next request within the turn that ends the one before."""

        async def both() -> list[bytes]:
            found = []
            for _ in range(2):
                answer = await self.asker.client.request("GET", f"{BASE}/x")
                found.append(b"".join([chunk async for chunk in answer.body]))
            return found

        asking = Deferred.fromCoroutine(both())
        line = self.asker.line()
        line.answer(body=b"one")
        line.answer(body=b"two")
        self.assertEqual([b"one", b"two"], self.successResultOf(asking))
        self.assertEqual(1, self.asker.wire.attempts)

    def test_other_urls_go_the_long_way(self) -> None:
        """A URL with several spellings is left to treq's parsers."""
        for path in ("/a/../b", "/%41", "/a#b", "/a b", "/\u00e9", "//x", "/.x"):
            self.asker.ask(path=path)
        self.assertEqual(0, self.requests())

    def test_a_body_is_read_at_its_own_pace(self) -> None:
        """A reader that reads nothing stops the server; the connection is kept after the end."""
        size = 3 << 20
        asking, line = self.asker.ask(), self.asker.line()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        answer = self.successResultOf(asking)
        for _ in range(2):
            line.say(bytes(1 << 20))
        self.assertEqual("paused", line.producerState)
        reading = Deferred.fromCoroutine(SameAnswerTests().read(answer))
        self.assertEqual("producing", line.producerState)
        line.say(bytes(1 << 20))
        self.assertEqual(size, len(self.successResultOf(reading)[0]))
        self.assertTrue(line.is_up)
