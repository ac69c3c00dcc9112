"""Uploads over HTTP: statuses, bodies, encodings and permission."""

from __future__ import annotations

import re

from ncps.auth.principal import Scope
from ncps.cache.answers import Outcome
from ncps.cache.write.verbs import UploadOutcome
from ncps.codec import encoder
from ncps.errors import (
    Conflict,
    Malformed,
    NcpsError,
    Refused,
    StorageFull,
    TooLarge,
    Unavailable,
)
from ncps.nix.narinfo import MAX_SIZE
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.web.guard import OpenGuard
from ncps.web.pages.nar import NarPages
from ncps.web.routes import Route, Verb
from tests.fakes.cache import StubCache, served_narinfo
from tests.unit.web.wire import DIGEST, Response, Server, ServerTestCase

KEY = NarKey("1" * 52, "xz")
NAR = f"/upload/nar/{KEY.file_name}"
NARINFO = f"/upload/{DIGEST}.narinfo"
TEXT = b"StorePath: /nix/store/x\n"


class UploadPagesCase(ServerTestCase):
    def setUp(self) -> None:
        self.server = Server(guard=OpenGuard((Scope.READ, Scope.WRITE)))

    def put(self, path: str, body: bytes, **headers: str) -> Response:
        client = self.server.connect()
        client.ask(path, b"PUT", b"HTTP/1.1", content_length=str(len(body)), **headers)
        client.send(body)
        response = client.response()
        client.leave()
        return response


class UploadTests(UploadPagesCase):
    def test_a_nar_is_passed_on_as_it_comes(self) -> None:
        """With the announced size, or in chunks. New is 201, known is 200."""
        self.assertEqual(201, self.put(NAR, b"bytes").status)
        self.assertEqual((b"bytes", 5), self.server.uploads.nars[KEY])
        client = self.server.connect()
        client.ask(NAR, b"PUT", transfer_encoding="chunked")
        client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        self.assertEqual(201, client.response().status)
        client.leave()
        self.assertEqual((b"abcde", None), self.server.uploads.nars[KEY])
        for outcome in (UploadOutcome.KNOWN, UploadOutcome.MERGED):
            self.server.uploads.outcome = outcome
            self.assertEqual(200, self.put(NAR, b"bytes").status)

    def test_a_narinfo_may_have_an_encoding(self) -> None:
        """As with `narinfo-compression`; a NAR may not. Others are 415."""
        for name in ("", "identity", "none"):
            self.assertEqual(201, self.put(NARINFO, TEXT, content_encoding=name).status)
        for name, compression in (("xz", "xz"), ("br", "br"), ("zstd", "zstd"), ("gzip", "gzip")):
            maker = encoder(compression)
            body = maker.feed(TEXT) + maker.finish()
            self.assertEqual(201, self.put(NARINFO, body, content_encoding=name).status)
            self.assertEqual(TEXT, self.server.uploads.narinfos.pop(DIGEST))
        self.assertEqual(400, self.put(NARINFO, TEXT, content_encoding="xz").status)
        for path, encoding in ((NARINFO, "rot13"), (NARINFO, "xz, gzip"), (NAR, "xz")):
            answer = self.put(path, TEXT, content_encoding=encoding)
            self.assertEqual(415, answer.status)
            self.assertIn(b"Content-Encoding", answer.body)

    def test_an_unknown_encoding_is_refused_before_the_body(self) -> None:
        """A client that waits for 100 Continue sends no body."""
        client = self.server.connect()
        client.ask(
            NARINFO, b"PUT", content_length="9", content_encoding="lzip", expect="100-continue"
        )
        response = client.response()
        self.assertEqual((415, "close"), (response.status, response.headers["connection"]))
        client.leave()

    def test_a_part_is_refused_before_the_body(self) -> None:
        """No object is stored as whole whose first bytes came alone (RFC 9110, 14.5)."""
        part = "bytes 0-8/99"
        for path in (NARINFO, NAR):
            client = self.server.connect()
            client.ask(path, b"PUT", content_length="9", content_range=part, expect="100-continue")
            response = client.response()
            self.assertEqual((400, "close"), (response.status, response.headers["connection"]))
            self.assertIn(b"without Content-Range", response.body)
            client.leave()
        self.assertEqual(({}, {}), (self.server.uploads.nars, self.server.uploads.narinfos))
        self.assertEqual(201, self.put(NAR, b"bytes", range="bytes=0-1").status)
        self.assertEqual((b"bytes", 5), self.server.uploads.nars[KEY])

    def test_a_body_of_unknown_length_is_refused(self) -> None:
        """Without a length it is 411, and bytes after the head are ignored.

        HTTP/1.0 lets a client end its body by closing, and HTTP/1.1 lets it leave out an empty one.
        """
        for version in (b"HTTP/1.0", b"HTTP/1.1"):
            for path in (NAR, NARINFO):
                client = self.server.connect()
                client.ask(path, b"PUT", version)
                client.ask("/pubkey")
                response = client.response()
                self.assertEqual((411, "close"), (response.status, response.headers["connection"]))
                self.assertIn(b"Content-Length", response.body)
                self.assertEqual(b"", client.value())
                client.leave()
        self.assertEqual(({}, {}), (self.server.uploads.nars, self.server.uploads.narinfos))

    def test_a_narinfo_that_becomes_too_large_is_refused(self) -> None:
        """A bomb costs no more than the largest narinfo."""
        maker = encoder("xz")
        body = maker.feed(bytes(MAX_SIZE + 1)) + maker.finish()
        self.assertEqual(413, self.put(NARINFO, body, content_encoding="xz").status)
        self.assertEqual(413, self.put(NARINFO, bytes(MAX_SIZE + 1)).status)

    def test_errors_say_what_to_do(self) -> None:
        """Each has its status, and a client that writes gets the reason."""
        errors: tuple[tuple[NcpsError, int], ...] = (
            (Malformed("so wrong"), 400),
            (Refused("so wrong"), 403),
            (Conflict("so wrong"), 409),
            (TooLarge("so wrong"), 413),
            (StorageFull("so wrong"), 507),
        )
        for error, status in errors:
            self.server.uploads.outcome = error
            for path in (NAR, NARINFO):
                answer = self.put(path, TEXT)
                self.assertEqual(status, answer.status)
                self.assertIn(b"so wrong", answer.body)
        self.server.uploads.outcome = Unavailable("away")
        answer = self.put(NAR, TEXT)
        self.assertEqual((503, "5"), (answer.status, answer.headers["retry-after"]))

    def test_reads_ask_no_upstream(self) -> None:
        """Only uploads answer them, and no answer is held ready."""
        self.server.cache.narinfos[DIGEST] = served_narinfo(TEXT, Outcome.HIT)
        for path in (NARINFO, NAR):
            for method in (b"GET", b"HEAD"):
                self.assertEqual(404, self.server.get(path, method).status)
        self.put(NAR, b"bytes")
        self.server.uploads.shown[DIGEST] = served_narinfo(TEXT, Outcome.HIT)
        self.assertEqual(b"bytes", self.server.get(NAR).body)
        self.assertEqual(200, self.server.get(NAR, b"HEAD").status)
        for _ in range(2):
            self.assertEqual(TEXT, self.server.get(NARINFO).body)
        self.assertEqual([], self.server.cache.asked)


class ClosedTests(UploadPagesCase):
    def setUp(self) -> None:
        self.server = Server()

    def test_no_client_uploads_without_permission(self) -> None:
        """405 comes before the body; outside /upload there is no PUT."""
        for path in (NAR, NARINFO, NAR.removeprefix("/upload"), NARINFO.removeprefix("/upload")):
            client = self.server.connect()
            client.ask(path, b"PUT", content_length="5", expect="100-continue")
            answer = client.response()
            self.assertEqual(405, answer.status)
            client.leave()
        self.assertEqual(({}, {}), (self.server.uploads.nars, self.server.uploads.narinfos))


class AtRootTests(ServerTestCase):
    """Uploads at the root, where reads ask upstreams."""

    def test_facts_that_no_upstream_knows(self) -> None:
        """HEAD is 404, so that the client uploads; GET is 503."""
        for takes_uploads, method, status in (
            (True, b"HEAD", 404),
            (True, b"GET", 503),
            (False, b"HEAD", 503),
        ):
            cache = StubCache()
            cache.nars[KEY] = Unavailable("the upstream is away")
            pages = NarPages(cache, Metrics(), takes_uploads=takes_uploads)
            verb = Verb(act=lambda request, _: pages.render(request, KEY))  # noqa: B023
            route = Route(
                pattern=re.compile(b"/root"), label="/root", verbs={b"HEAD": verb, b"GET": verb}
            )
            self.server = Server(more=[route])
            self.assertEqual(status, self.server.get("/root", method).status)
