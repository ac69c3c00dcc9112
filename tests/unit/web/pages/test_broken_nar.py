"""NARs over HTTP whose bodies fail, and clients that leave or stop reading."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.answers import Absent, Outcome
from ncps.errors import Corrupt, Unavailable
from ncps.nix.narurl import NarKey
from ncps.settings.schema.server import ServerSettings
from tests.fakes.cache import StubNar
from tests.unit.web.wire import Response, Server, parse_response

KEY = NarKey("0" * 52, "xz")
PATH = f"/{KEY.url}"
ETAG = f'"{KEY.file_name}"'


class BrokenNarTests(SynchronousTestCase):
    """An incomplete answer must never look complete."""

    def setUp(self) -> None:
        self.server = Server(ServerSettings(write_stall_timeout_s=60.0))
        self.cache = self.server.cache

    def cut(self, *pieces: bytes | Exception, size: int | None) -> tuple[Response, StubNar]:
        nar = self.cache.add_nar(KEY, *pieces, size=size)
        client = self.server.connect()
        client.ask(PATH)
        self.assertTrue(client.disconnected, "connection was not aborted")
        self.assertEqual(nar.closed, 1)
        self.assertEqual([body.closed for body in nar.bodies], [1])
        response, _ = parse_response(client.value())
        self.assertFalse(response.whole)
        self.assertEqual(
            self.server.sample(
                "ncps_nar_served_total", result="hit", status="error", upstream_hostname=""
            ),
            1,
        )
        self.assertEqual(len(self.server.logged), 1)
        self.assertEqual(self.server.timers, [])
        return response, nar

    def test_error_after_first_byte_aborts_with_length(self) -> None:
        """The client sees that the body is cut."""
        response, _ = self.cut(b"abc", Unavailable("upstream reset"), size=6)
        self.assertEqual(response.body, b"abc")

    def test_error_after_first_byte_aborts_chunked(self) -> None:
        """A body of unknown length gets no last chunk."""
        response, _ = self.cut(b"abc", Corrupt("wrong hash"), size=None)
        self.assertEqual(response.body, b"abc")

    def test_unexpected_error_after_first_byte_aborts(self) -> None:
        """An unexpected error cuts the body, too."""
        self.cut(b"abc", ZeroDivisionError("boom"), size=6)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_error_after_last_byte_aborts(self) -> None:
        """An error after the last byte still cuts the response."""
        response, _ = self.cut(b"abc", b"def", Corrupt("wrong hash"), size=6)
        self.assertEqual(response.body, b"abc")

    def test_short_body_aborts(self) -> None:
        """A body that is too short does not end normally."""
        self.cut(b"abc", size=6)

    def test_long_body_aborts(self) -> None:
        """A body that is too long is not cut to its length."""
        self.cut(b"abc", b"def", b"g", size=6)

    def test_error_before_first_byte_is_an_answer(self) -> None:
        """Before the first byte, an error has a status."""
        for error, status in (
            (Unavailable("reset"), 503),
            (Unavailable("slow", timed_out=True), 504),
            (Corrupt("wrong hash"), 502),
            (Absent("upstream 404", outcome=Outcome.MISS), 404),
        ):
            self.cache.add_nar(KEY, error, size=6)
            response = self.server.get(PATH, range="bytes=1-")
            self.assertEqual(response.status, status)
            self.assertTrue(response.whole)
            self.assertNotIn("content-range", response.headers)
            self.assertNotIn("etag", response.headers)

    def test_stored_bytes_that_are_bad_come_from_elsewhere(self) -> None:
        """Before the first byte, an unreadable NAR is opened once more."""
        bad = StubNar(KEY, [Corrupt("Input/output error")], size=6)
        bad.may_go_better = True
        good = StubNar(KEY, [b"abcdef"], size=6, outcome=Outcome.MISS)
        opened: list[StubNar] = []

        async def nar(_: NarKey, *, is_part: bool = False) -> StubNar:
            opened.append(good if opened else bad)
            return opened[-1]

        self.patch(self.cache, "nar", nar)
        response = self.server.get(PATH, range="bytes=1-")
        self.assertEqual((206, b"bcdef"), (response.status, response.body))
        self.assertEqual("miss", response.headers["x-cache"])
        self.assertEqual("bytes 1-5/6", response.headers["content-range"])
        self.assertEqual(["Input/output error"], bad.complaints)
        self.assertEqual([1, 1], [each.closed for each in opened])

    def test_stored_bytes_that_are_bad_again_and_again(self) -> None:
        """If every source is bad, the client gets an error soon."""
        nar = self.cache.add_nar(KEY, Corrupt("Input/output error"), size=6)
        nar.may_go_better = True
        self.assertEqual(502, self.server.get(PATH).status)
        self.assertEqual((2, 2), (len(nar.complaints), nar.closed))

    def test_stored_bytes_that_are_bad_in_the_middle(self) -> None:
        """After the first byte only the core learns it; the client must retry."""
        _, nar = self.cut(b"abc", Corrupt("Input/output error"), size=6)
        self.assertEqual(["Input/output error"], nar.complaints)

    def test_error_of_known_size_is_an_answer(self) -> None:
        """If a download fails while its size is awaited, the client gets a status."""

        def fail() -> int:
            raise Unavailable("reset", retry_after=7)

        nar = self.cache.nars[KEY] = StubNar(KEY, [b"abc"], size=None, sized=fail)
        response = self.server.get(PATH, range="bytes=1-")
        self.assertEqual((response.status, response.headers["retry-after"]), (503, "7"))
        self.assertEqual(nar.closed, 1)

    def test_client_leaving_while_nar_is_opened_cancels(self) -> None:
        """Work for this client only is cancelled."""
        cancelled: list[object] = []
        self.cache.gate = Deferred(cancelled.append)
        client = self.server.connect()
        client.ask(PATH)
        client.leave()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual([access.is_complete for access in self.server.logged], [False])

    def test_client_leaving_during_body_closes_it(self) -> None:
        """The NAR is closed immediately."""
        never: Deferred[None] = Deferred()
        nar = self.cache.add_nar(KEY, b"abc", never, size=6)
        client = self.server.connect()
        client.ask(PATH)
        client.leave()
        self.assertTrue(never.called)
        self.assertEqual((nar.closed, nar.bodies[0].closed), (1, 1))
        self.assertEqual(self.server.timers, [])

    def test_client_that_reads_slowly_holds_body_back(self) -> None:
        """Bytes are read at the pace of the client."""
        nar = self.cache.add_nar(KEY, b"abc", b"def", b"ghi", size=9)
        client = self.server.connect()
        client.is_slow = True
        client.ask(PATH)
        self.assertEqual(nar.bodies[0].delivered, 3)
        assert client.producer is not None
        client.producer.resumeProducing()
        self.assertEqual(nar.bodies[0].delivered, 6)
        client.leave()
        self.assertEqual(nar.closed, 1)

    def test_client_that_reads_nothing_is_cut(self) -> None:
        """A client that stops reading does not keep a NAR open."""
        nar = self.cache.add_nar(KEY, b"abc", b"def", size=6)
        client = self.server.connect()
        client.is_slow = True
        client.ask(PATH)
        self.server.clock.advance(59)
        self.assertFalse(client.disconnected)
        self.server.clock.advance(1)
        self.assertTrue(client.disconnected)
        self.assertEqual(nar.closed, 1)
        self.assertEqual(self.server.timers, [])
