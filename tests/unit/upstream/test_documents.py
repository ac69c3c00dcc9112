"""HttpDocuments: one small document, whatever its server does."""

from __future__ import annotations

import zlib

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination
from ncps.upstream.documents import TIMEOUTS, HttpDocuments
from tests.fakes.wire import Line, Wire
from tests.unit.upstream.test_reach import METADATA, PUBLIC, Names

HERE = "http://127.0.0.1:8080"
URL = f"{HERE}/keys"


class DocumentsCase(SynchronousTestCase):
    base = HERE

    def setUp(self) -> None:
        self.wire = Wire()
        client = Client(self.wire, Destination(base_url=self.base, timeouts=TIMEOUTS))
        self.documents = HttpDocuments(client, self.wire, max_size=1000, deadline_s=10)

    def fetch(self, url: str = URL) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.documents.fetch(url))

    def asked(self) -> tuple[Deferred[bytes], Line]:
        fetching = self.fetch()
        return fetching, self.wire.accept()

    def failed(self, fetching: Deferred[bytes], kind: type[NcpsError]) -> str:
        self.wire.advance(0)
        return str(self.failureResultOf(fetching, kind).value)


class DocumentsTests(DocumentsCase):
    def test_a_document(self) -> None:
        """It arrives as the server has it."""
        fetching, line = self.asked()
        self.assertTrue(line.sent.startswith(b"GET /keys HTTP/1.1\r\n"))
        line.answer(body=b'{"keys": []}')
        self.assertEqual(b'{"keys": []}', self.successResultOf(fetching))

    def test_a_compressed_document(self) -> None:
        """The bound applies to the decoded document."""
        for size, is_right in ((1000, True), (1_000_000, False)):
            fetching = self.fetch()
            line = self.wire.accept() if self.wire.pending else self.wire.lines[-1]
            packed = zlib.compressobj(wbits=31)
            line.answer(body=packed.compress(b"x" * size) + packed.flush(), content_encoding="gzip")
            if is_right:
                self.assertEqual(size, len(self.successResultOf(fetching)))
            else:
                self.assertIn("more than 1000", self.failed(fetching, Corrupt))

    def test_a_document_without_end(self) -> None:
        """It is left when it is too large, and the connection with it."""
        fetching, line = self.asked()
        line.say(b"HTTP/1.1 200 OK\r\n\r\n")
        line.say(b"x" * 1001)
        self.assertIn("more than 1000", self.failed(fetching, Corrupt))
        self.assertFalse(line.is_up)

    def test_redirects_are_not_followed(self) -> None:
        """Neither to another server nor on the same one."""
        for location in ("https://evil.example/keys", "/elsewhere"):
            fetching, line = self.asked()
            line.answer("302 Found", location=location, connection="close")
            self.assertIn("elsewhere", self.failed(fetching, Corrupt))
        self.assertEqual(2, self.wire.attempts)

    def test_errors_of_the_server(self) -> None:
        """Then the content of the document is unknown."""
        for status in ("404 Not Found", "500 Oops", "204 No Content", "206 Partial Content"):
            fetching, line = self.asked()
            line.answer(status, connection="close")
            self.assertIn(status[:3], self.failed(fetching, Unavailable))

    def test_a_server_that_breaks_off(self) -> None:
        """A part of a document counts as none."""
        fetching, line = self.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        line.cut()
        self.failed(fetching, Unavailable)

    def test_a_server_that_hangs(self) -> None:
        """Before its answer, in the middle, and byte by byte: the deadline holds."""
        fetching, line = self.asked()
        self.wire.advance(8)
        self.failed(fetching, Unavailable)
        fetching, line = self.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(9):
            self.wire.advance(1)
            line.say(b"x")
        self.assertNoResult(fetching)
        self.wire.advance(1)
        self.assertIn("within 10 s", self.failed(fetching, Unavailable))
        self.assertFalse(line.is_up)
        self.assertEqual([], self.wire.getDelayedCalls())

    def test_a_server_that_speaks_something_else(self) -> None:
        """Without an answer there is no document."""
        fetching, line = self.asked()
        line.say(b"SSH-2.0-OpenSSH\r\n\r\n")
        self.wire.advance(0)
        self.wire.accept().say(b"SSH-2.0-OpenSSH\r\n\r\n")  # it is asked once more
        self.failed(fetching, Unavailable)

    def test_a_reader_that_leaves(self) -> None:
        """Nothing of the fetch is left."""
        fetching, line = self.asked()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        fetching.addErrback(lambda _: None)
        fetching.cancel()
        self.wire.advance(0)
        self.assertFalse(line.is_up)
        self.assertEqual([], self.wire.getDelayedCalls())


class PublicTests(DocumentsCase):
    base = "http://issuer.example"

    def test_a_server_of_the_internet_does_not_lead_to_this_machine(self) -> None:
        """It may name the URL of its keys, but cannot make us ask what only we can reach."""
        self.wire.installNameResolver(Names(issuer_example=[PUBLIC], lan_example=["10.0.0.7"]))
        for url in ("http://127.0.0.1/keys", f"http://{METADATA}/", "http://lan.example/keys"):
            fetching = self.fetch(url)
            self.wire.pump([0.3] * 4)
            told = self.failed(fetching, Corrupt)
            self.assertIn("an internal address", told)
        self.assertEqual(0, self.wire.attempts)
