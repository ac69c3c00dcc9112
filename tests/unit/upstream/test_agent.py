"""Client: deadlines, redirects, credentials and errors, on connections in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ncps.aio.streams import BodyReader
from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Answer, Client
from ncps.upstream.destination import BasicCredentials, Destination, Timeouts
from tests.fakes.wire import Line, Wire

BASE = "http://127.0.0.1:8080"


class ClientCase(SynchronousTestCase):
    credentials: BasicCredentials | None = None

    def setUp(self) -> None:
        self.wire = Wire()
        self.metrics = Metrics()
        self.client = Client(
            self.wire,
            Destination(
                base_url=BASE,
                timeouts=Timeouts(connect_s=3, first_byte_s=4, nar_s=50, idle_s=20),
                credentials=self.credentials,
            ),
            bounds=UpstreamsSettings(max_connections=2, max_queries=2),
            metrics=self.metrics,
        )

    def ask(self, path: str = "/x", method: str = "GET", **options: str) -> Deferred[Answer]:
        url = path if "://" in path else BASE + path
        return Deferred.fromCoroutine(self.client.request(method, url, **options))  # type: ignore[arg-type]

    def read(self, answer: Answer) -> Deferred[bytes]:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in answer.body])

        return Deferred.fromCoroutine(read())

    def redirect(self, line: Line, location: str, status: str = "302 Found") -> None:
        line.answer(status, location=location)


class RequestTests(ClientCase):
    def test_answer_comes_with_its_head(self) -> None:
        """The answer is there with its head; the body follows at its own pace."""
        asking = self.ask("/x?y=z")
        line = self.wire.accept()
        head, _, _ = line.sent.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"GET /x?y=z HTTP/1.1\r\n"))
        self.assertIn(b"Accept-Encoding: identity", head)
        self.assertIn(b"User-Agent: ncps/", head)
        self.assertNotIn(b"x-ncps", head.lower())
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        answer = self.successResultOf(asking)
        self.assertEqual(
            (200, 6, "", BASE + "/x?y=z"),
            (answer.status, answer.content_length, answer.encoding, answer.url),
        )
        reading = self.read(answer)
        self.assertNoResult(reading)
        line.say(b"def")
        self.assertEqual(b"abcdef", self.successResultOf(reading))
        self.assertEqual([], self.wire.getDelayedCalls()[1:])

    def test_connection_is_used_again(self) -> None:
        """The second request needs no new connection, also after a HEAD or an empty answer."""
        for method in ("GET", "HEAD", "GET"):
            asking = self.ask(method=method)
            line = self.wire.lines[0] if self.wire.lines else self.wire.accept()
            if method == "HEAD":
                line.answer(content_length="5")
            else:
                line.answer(body=b"hello")
            answer = self.successResultOf(asking)
            self.assertEqual(5, answer.content_length)
            answer.body.close()
        self.assertEqual(1, self.wire.attempts)

    def test_encoding_is_shown_and_not_undone(self) -> None:
        """The caller decodes the Content-Encoding."""
        asking = self.ask(accept_encoding="zstd")
        line = self.wire.accept()
        self.assertIn(b"Accept-Encoding: zstd", line.sent)
        line.answer(body=b"\x1f\x8b", content_encoding="GZIP")
        answer = self.successResultOf(asking)
        self.assertEqual("gzip", answer.encoding)
        self.assertEqual(b"\x1f\x8b", self.successResultOf(self.read(answer)))

    def test_identity_is_no_encoding(self) -> None:
        """A server that says "identity" uses no encoding."""
        asking = self.ask()
        self.wire.accept().answer(content_encoding="identity")
        self.assertEqual("", self.successResultOf(asking).encoding)

    def test_cookies_are_not_kept(self) -> None:
        """An upstream can neither fill our memory with cookies nor track us."""
        asking = self.ask()
        line = self.wire.accept()
        line.answer(set_cookie="a=b; Path=/")
        self.successResultOf(asking)
        self.ask()
        self.assertNotIn(b"cookie", line.sent.partition(b"\r\n\r\n")[2].lower())

    def test_idle_body_breaks_off(self) -> None:
        """A stalled body is given up after the idle time."""
        asking = self.ask()
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        reading = self.read(self.successResultOf(asking))
        self.wire.advance(20)
        self.assertTrue(self.failureResultOf(reading, Unavailable).value.timed_out)
        self.assertFalse(line.is_up)

    def test_close_ends_idle_connections(self) -> None:
        """After `close` no connection is left."""
        asking = self.ask()
        line = self.wire.accept()
        line.answer()
        self.successResultOf(asking)
        closing = Deferred.fromCoroutine(self.client.close())
        self.wire.advance(0)
        self.successResultOf(closing)
        self.assertFalse(line.is_up)

    def test_host_of(self) -> None:
        """The host of a URL is spelled as in netrc files."""
        self.assertEqual("h", Client.host_of("https://u@h:8/x"))
        self.assertEqual("", Client.host_of("nothing"))


class FailureTests(ClientCase):
    def failure(self, asking: Deferred[Answer], kind: type[NcpsError]) -> NcpsError:
        error: NcpsError = self.failureResultOf(asking, kind).value
        return error

    def test_silence_is_timed_out_once(self) -> None:
        """An upstream that accepts and says nothing costs one deadline, not two."""
        asking = self.ask()
        line = self.wire.accept()
        self.wire.advance(6.9)
        self.assertNoResult(asking)
        self.wire.advance(0.1)
        error = self.failureResultOf(asking, Unavailable).value
        self.assertTrue(error.timed_out)
        self.assertIn("no answer within 7 s", str(error))
        self.assertEqual((1, False), (self.wire.attempts, line.is_up))

    def test_connection_that_never_comes_is_timed_out(self) -> None:
        """The same for an upstream that does not even accept the connection."""
        asking = self.ask()
        self.wire.advance(7)
        self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
        self.assertEqual(1, self.wire.attempts)

    def test_refused_and_unknown_hosts_are_unavailable(self) -> None:
        """An upstream that is away counts as "could not tell"."""
        for error, timed_out in (
            (None, False),
            (ConnectTimeout(), True),
            (DNSLookupError("no such host"), False),
        ):
            asking = self.ask()
            self.wire.refuse(error)
            failed = self.failureResultOf(asking, Unavailable).value
            self.assertEqual(timed_out, failed.timed_out)

    def test_cut_before_the_head_is_tried_once_more(self) -> None:
        """A connection that breaks before a byte of the answer may just have been stale."""
        asking = self.ask()
        self.wire.accept().cut()
        self.assertNoResult(asking)
        self.assertEqual(2, self.wire.attempts)
        self.wire.accept().answer(body=b"ok")
        self.assertEqual(200, self.successResultOf(asking).status)

    def test_second_cut_is_the_last(self) -> None:
        """An upstream that always hangs up is unavailable."""
        asking = self.ask()
        self.wire.accept().cut()
        self.wire.accept().end()
        self.wire.advance(0)
        self.assertIn("closed the connection", str(self.failure(asking, Unavailable)))
        self.assertEqual(2, self.wire.attempts)

    def test_garbage_is_unavailable(self) -> None:
        """A server that does not speak HTTP counts as away."""
        asking = self.ask()
        for _ in range(2):
            self.wire.accept().say(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        self.failure(asking, Unavailable)

    def test_impossible_urls_are_corrupt(self) -> None:
        """A URL that cannot be requested is the fault of the upstream that named it."""
        for url in (
            "ftp://h/",
            "http://[",
            "http:///x",
            "http://h:x/",
            "http://a b/",
            "http://" + "a" * 300,
        ):
            self.failure(self.ask(url), Corrupt)
        self.assertEqual(0, self.wire.attempts)

    def test_cancel_is_no_failure_of_the_upstream(self) -> None:
        """A cancelled request is not sent again, at no stage."""
        connecting = self.ask()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        waiting = self.ask()
        line = self.wire.accept()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((2, False), (self.wire.attempts, line.is_up))
        self.wire.advance(0)
        self.assertEqual([], self.wire.getDelayedCalls())


class LengthTests(ClientCase):
    def length(self, text: str, method: str) -> int | None:
        self.setUp()
        asking = self.ask(method=method)
        self.wire.accept().say(f"HTTP/1.1 200 OK\r\n{text}\r\n".encode())
        return self.successResultOf(asking).content_length

    def test_length_is_known_before_the_body(self) -> None:
        """The length of a body is known with its head, also for HEAD."""
        for method in ("GET", "HEAD"):
            self.assertEqual(12, self.length("Content-Length: 12\r\n", method))
            self.assertIsNone(self.length("Transfer-Encoding: chunked\r\n", method))
            self.assertIsNone(self.length("", method))

    def test_length_of_no_sense_is_unknown(self) -> None:
        """A length that is no number, or an absurd one, is ignored."""
        for text in ("-1", "x", "1" * 5000):
            self.assertIsNone(self.length(f"Content-Length: {text}\r\n", "HEAD"))


class RedirectTests(ClientCase):
    def test_redirects_are_followed_against_the_url_that_sent_them(self) -> None:
        """A relative Location is relative to the URL that was requested."""
        asking = self.ask("/a/b")
        line = self.wire.accept()
        self.redirect(line, "/c/d", "301 Moved")
        self.assertIn(b"GET /c/d ", line.sent)
        self.redirect(line, "e", "307 Temporary Redirect")
        self.assertIn(b"GET /c/e ", line.sent)
        line.answer(body=b"x")
        self.assertEqual(BASE + "/c/e", self.successResultOf(asking).url)
        self.assertEqual(1, self.wire.attempts)

    def test_endless_redirects_end(self) -> None:
        """A loop of redirects ends with an error."""
        asking = self.ask()
        line = self.wire.accept()
        for _ in range(UpstreamsSettings().max_redirects + 1):
            self.assertNoResult(asking)
            self.redirect(line, "/x")
        self.failureResultOf(asking, Unavailable)

    def test_useless_locations_are_not_followed(self) -> None:
        """Only HTTP is followed; a missing or broken Location leads nowhere."""
        for location in (
            "",
            "file:///etc/passwd",
            "ftp://h/",
            "http://[",
            "http://h:99999999/",
            "//[",
        ):
            self.setUp()
            asking = self.ask()
            self.redirect(self.wire.accept(), location)
            self.failureResultOf(asking, Unavailable)

    def test_https_is_not_left(self) -> None:
        """A request that began encrypted does not continue unencrypted."""
        self.failureResultOf(Deferred.fromCoroutine(self._redirected_from_https()), Unavailable)

    async def _redirected_from_https(self) -> None:
        from ncps.upstream.agent import _redirected

        self.assertEqual("https://h/y", _redirected("https://h/x", "/y"))
        _redirected("https://h/x", "http://h/x")

    def test_body_of_a_redirect_does_not_keep_its_connection(self) -> None:
        """A redirect with an endless body is left immediately."""
        asking = self.ask()
        line = self.wire.accept()
        line.say(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 1000000\r\n\r\n")
        self.assertFalse(line.is_up)
        self.wire.accept().answer(body=b"x")
        self.assertEqual(200, self.successResultOf(asking).status)


class CredentialsTests(ClientCase):
    credentials = BasicCredentials(user="me", password="secret")

    def test_credentials_go_to_their_own_origin_only(self) -> None:
        """A redirect to another origin does not get the password."""
        asking = self.ask()
        line = self.wire.accept()
        self.assertIn(b"Authorization: Basic bWU6c2VjcmV0", line.sent)
        self.redirect(line, "/y")
        self.assertIn(b"Authorization: Basic bWU6c2VjcmV0", line.sent)
        self.redirect(line, "http://127.0.0.1:9999/z")
        other = self.wire.accept()
        self.assertNotIn(b"uthorization", other.sent)
        other.answer()
        self.successResultOf(asking)

    def test_repr_is_silent(self) -> None:
        """No log shows a password."""
        self.assertNotIn("secret", repr(self.credentials))


class AnswerTests(SynchronousTestCase):
    def answer(self, **headers: str) -> Answer:
        fields = Headers(
            {name.replace("_", "-").encode(): [value.encode()] for name, value in headers.items()}
        )
        return Answer(
            url="",
            status=200,
            values=lambda name: list(fields.getRawHeaders(name, [])),
            encoding="",
            content_length=None,
            body=BodyReader(clock=Wire(), idle_after=1),
        )

    def test_retry_after(self) -> None:
        """Seconds or a date; anything else is ignored."""
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
        past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
        self.assertEqual(7.0, self.answer(retry_after="7").retry_after_s)
        self.assertLess(abs((self.answer(retry_after=soon).retry_after_s or 0) - 100), 5)
        self.assertEqual(0.0, self.answer(retry_after=past).retry_after_s)
        for text in ("", "soon", "-3", "Mon, 99 Foo 9999 99:99:99 GMT"):
            self.assertIsNone(self.answer(retry_after=text).retry_after_s)
        self.assertGreater(self.answer(retry_after="9" * 50).retry_after_s or 0, 1000)
