"""Remembered heads: the answers are the same bytes as with a parsed head."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ncps.auth.principal import Scope
from ncps.cache.answers import Outcome
from ncps.settings.schema.server import ServerSettings
from ncps.web.fast.heads import LONGEST, KnownHeads, head_of
from ncps.web.guard import OpenGuard
from tests.fakes.cache import served_narinfo
from tests.unit.web.wire import Server

DIGEST = "0" * 32
REST = b" HTTP/1.1\r\nHost: cache\r\nUser-Agent: curl/8.14.1 Nix/2.28.4\r\nAccept: */*\r\n\r\n"
PATHS = (
    b"/pubkey",
    b"/%s.narinfo" % DIGEST.encode(),
    b"/upload/%s.narinfo" % DIGEST.encode(),
    b"/nowhere?x=%00",
    b"//",
)
LINES = (
    b"Host: cache",
    b"Accept: */*",
    b"If-None-Match: *",
    b"Connection: close",
    b"Content-Length: 0",
    b"Content-Length: 3",
    b"Content-Length: 03",
    b"Content-Length: ",
    b"content-length: 3",
    b"Content-Length: 3\r\n 0",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Cookie: a=b",
    b"Range: bytes=0-1",
    b"X: a\nConnection: close",
    b"X:\x00",
    b" folded",
    b"no colon",
    b"",
)
TARGETS = st.one_of(
    st.sampled_from(PATHS),
    st.sampled_from([b"/a\r\nX: y", b"/a\tb", b"/\xff", b"/a HTTP/1.0\r\nX:", b"", b"*", b"/a b"]),
)
HEADS = st.tuples(
    st.sampled_from([b"GET", b"HEAD", b"get", b"PUT"]),
    TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 ", b"http/1.1"]),
    st.lists(st.sampled_from(LINES), max_size=4),
).map(lambda parts: b"%s %s %s\r\n%s\r\n\r\n" % (*parts[:3], b"\r\n".join(parts[3])))
UPLOADS = st.tuples(
    st.sampled_from([3, 1, 4]),
    st.sampled_from([b"", b"Accept: */*\r\n", b"Expect: 100-continue\r\n"]),
).map(
    lambda parts: (
        b"PUT /upload/%s.narinfo HTTP/1.1\r\nHost: cache\r\nContent-Length: %d\r\n%s\r\n"
        % (DIGEST.encode(), *parts)
    )
)
BODIES = st.sampled_from([b"", b"abc", b"abc", b"ab", b"abcd", b"abcGET /pubkey" + REST])
PIECES = st.one_of(
    HEADS.map(lambda head: [head]),
    st.tuples(UPLOADS, BODIES).map(list),
    st.tuples(UPLOADS, BODIES).map(lambda parts: [b"".join(parts)]),
    st.tuples(HEADS, BODIES).map(list),
)


def _server(*, is_forgetful: bool) -> Server:
    server = Server(guard=OpenGuard((Scope.READ, Scope.WRITE)))
    server.cache.narinfos[DIGEST] = served_narinfo(
        text=b"StorePath: x\n", outcome=Outcome.HIT, upstream="up.example"
    )
    server.site.date = lambda: b"now"  # type: ignore[method-assign]
    if is_forgetful:
        server.site.heads.learn = lambda head, headers: None  # type: ignore[method-assign]
    return server


class SameAnswersTests(SynchronousTestCase):
    @given(st.lists(PIECES, min_size=1, max_size=6))
    @settings(deadline=None)
    def test_any_requests_are_answered_as_without_memory(self, requests: list[list[bytes]]) -> None:
        """Requests that a client repeats get the same answers with known heads as without."""
        answers = []
        for is_forgetful in (True, False):
            server = _server(is_forgetful=is_forgetful)
            said: list[object] = []
            for _ in range(2):
                client = server.connect()
                for piece in (piece for pieces in requests for piece in pieces):
                    if not (client.disconnecting or client.disconnected):
                        client.send(piece)
                said.append((client.value(), client.disconnecting, client.disconnected))
                said.append((dict(server.uploads.narinfos), dict(server.uploads.nars)))
                client.leave()
            answers.append(said)
        self.assertEqual(answers[0], answers[1])


class KnownHeadsTests(SynchronousTestCase):
    def test_repeated_head_is_not_parsed_again(self) -> None:
        """The second request of a client is not parsed, for any path."""
        server = _server(is_forgetful=False)
        client = server.connect()
        client.send(b"GET /pubkey" + REST)
        self.assertEqual(client.response().status, 200)
        parsed: list[bytes] = []
        client.protocol.lineReceived = parsed.append
        client.send(b"GET /%s.narinfo" % DIGEST.encode() + REST)
        self.assertEqual(client.response().status, 200)
        self.assertEqual(parsed, [])

    def test_repeated_head_of_an_upload_is_not_parsed_again(self) -> None:
        """The second upload of a client costs no parsing, whatever its path and length."""
        server = _server(is_forgetful=False)
        client = server.connect()
        parsed: list[bytes] = []
        for number, body in enumerate((b"abc", b"abcdefghijkl")):
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            digest = b"%d" % number * 32
            client.send(b"PUT /upload/%s.narinfo" % digest + REST[:-2] + length)
            client.send(body)
            self.assertEqual(client.response().status, 201)
            client.protocol.lineReceived = parsed.append
        self.assertEqual(parsed, [])
        self.assertEqual(list(server.uploads.narinfos.values()), [b"abc", b"abcdefghijkl"])

    def test_each_upload_that_waits_is_told_to_continue(self) -> None:
        """The head of an upload with Expect is known as well, and answered each time."""
        server = _server(is_forgetful=False)
        client = server.connect()
        parsed: list[bytes] = []
        head = b"PUT /upload/%s.narinfo" % DIGEST.encode() + REST[:-2]
        for _ in range(3):
            client.send(head + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", client.value())
            client.clear()
            client.send(b"abc")
            self.assertEqual(client.response().status, 201)
            client.protocol.lineReceived = parsed.append
        self.assertEqual(parsed, [])

    def test_head_without_the_digits_of_its_length_is_not_that_of_an_upload(self) -> None:
        """A proxy may find a body where no digits are, so that ncps answers 400 as before."""
        head = b" HTTP/1.1\r\nHost: cache\r\nContent-Length: %s\r\n\r\n"
        for method in (b"GET", b"HEAD", b"PUT"):
            server = _server(is_forgetful=False)
            client = server.connect()
            client.send(b"GET /%s.narinfo" % DIGEST.encode() + REST)
            self.assertEqual(client.response().status, 200)
            client.send(b"PUT /upload/%s.narinfo" % DIGEST.encode() + head % b"3" + b"abc")
            self.assertEqual(client.response().status, 201)
            client.send(b"%s /%s.narinfo" % (method, DIGEST.encode()) + head % b"")
            self.assertEqual(client.response().status, 400)

    def test_many_pipelined_uploads_are_all_answered(self) -> None:
        """Uploads that come in one piece are answered one after the other, not in each other."""
        client = _server(is_forgetful=False).connect()
        head = b"PUT /upload/%s.narinfo HTTP/1.1\r\nHost: cache\r\nContent-Length: 3\r\n\r\n"
        for _ in range(2):
            client.send((head % DIGEST.encode() + b"abc") * 300)
        self.assertEqual(client.value().count(b"HTTP/1.1 201 Created\r\n"), 600)
        self.assertFalse(client.disconnecting)

    def test_headers_are_those_of_the_first_time(self) -> None:
        """Conditions in a known head apply again."""
        server = _server(is_forgetful=False)
        client = server.connect()
        rest = REST[:-2] + b"If-None-Match: *\r\n\r\n"
        for _ in range(2):
            client.send(b"GET /%s.narinfo" % DIGEST.encode() + rest)
            self.assertEqual(client.response().status, 304)

    def test_known_head_with_a_longer_path_still_has_the_limit_of_heads(self) -> None:
        """A long path can make a known head too large."""
        server = Server(ServerSettings(max_header_size_bytes=1000))
        client = server.connect()
        client.send(b"GET /pubkey" + REST)
        self.assertEqual(client.response().status, 200)
        client.send(b"GET /" + b"a" * 1000 + REST)
        self.assertIn(client.response().status, {414, 431})

    def test_head_that_concerns_more_than_itself_is_never_known(self) -> None:
        """A head about the connection or a body is always parsed."""
        known = KnownHeads()
        for line in (b"Connection: close", b"content-length : 0", b"EXPECT: x", b"Cookie: a=b"):
            head = head_of(b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n")
            assert head is not None
            known.learn(head, Headers())
            self.assertIsNone(known.find(head.rest))

    def test_all_but_one_whole_head_is_ignored(self) -> None:
        """Pieces of heads, other verbs and odd targets go through the usual code."""
        upload = b"PUT / HTTP/1.1\r\nContent-Length: %s\r\n\r\n"
        for data in (
            b"GET /" + REST[:-1],
            b"DELETE /" + REST,
            b"PUT /" + REST,
            upload[:-1] % b"3",
            upload % b"0",
            upload % b"03",
            upload % b"3\r\n 0",
            upload % b"3 ",
            upload % b"3" + b"abcG",
            b"GET /\x01" + REST,
            b"GET /\r\n" + REST,
            b"GET /" + b"a" * LONGEST + REST,
        ):
            self.assertIsNone(head_of(data))

    def test_two_heads_at_once_are_never_known(self) -> None:
        """Two pipelined requests do not count as one."""
        known = KnownHeads()
        head = head_of(b"GET /a" + REST + b"GET /b" + REST)
        assert head is not None
        known.learn(head, Headers())
        self.assertIsNone(known.find(head.rest))

    def test_memory_is_bounded(self) -> None:
        """A client whose heads all differ fills no memory."""
        known = KnownHeads()
        for number in range(3000):
            head = head_of(b"GET / HTTP/1.1\r\nX: %d\r\n\r\n" % number)
            assert head is not None
            known.learn(head, Headers())
        self.assertLessEqual(len(known), 1024)
