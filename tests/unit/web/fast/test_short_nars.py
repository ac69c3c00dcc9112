"""The short cut of stored NARs: which requests take it, and how they go on half-way."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.errors import Corrupt
from ncps.observe.tracing.spans import Span, current
from tests.fakes.cache import ScriptedBody, StubNar
from tests.fakes.spans import MemoryTracer
from tests.unit.web.fast.test_channel import NARS, ShortCutCase, nar_head


class ShortNarTests(ShortCutCase):
    def test_plain_request_for_a_hot_nar_is_not_passed_on(self) -> None:
        """The cache is not asked again; the use is reported."""
        self.assertTrue(self.is_taken(nar_head(NARS[0])))
        response = self.client.response()
        self.assertEqual((200, True), (response.status, response.whole))
        self.assertEqual("hit", response.headers["x-cache"])
        access = self.server.logged[-1]
        self.assertTrue(access.is_hot)
        self.assertEqual((NARS[0].file_name, len(response.body)), (access.digest, access.size))
        self.assertEqual([NARS[0]], self.server.cache.used)
        self.assertEqual(1, self.server.sample("ncps_short_answers_total", route="/nar/{file}"))

    def test_nar_that_has_changed_is_asked_for(self) -> None:
        """An evicted, damaged or replaced NAR is not sent by the short cut."""
        for changed in (NARS[0], None):
            self.server.cache.nar_changed(changed)
            self.assertFalse(self.is_taken(nar_head(NARS[0])))
            self.assertTrue(self.is_taken(nar_head(NARS[0])))
        self.way.is_away = True  # the file cannot be opened
        self.assertFalse(self.is_taken(nar_head(NARS[0])))

    def test_nar_that_may_not_be_sent_again_is_asked_for(self) -> None:
        """The core decides which answers may be sent again."""
        nar = self.server.cache.nars[NARS[0]]
        assert isinstance(nar, StubNar)
        nar.reopen = None
        self.server.cache.nar_changed(None)
        for _ in range(2):
            self.assertFalse(self.is_taken(nar_head(NARS[0])))

    def test_client_that_leaves_in_the_middle_of_a_file(self) -> None:
        """The log has the bytes that were sent, and "not complete"."""
        nar = self.server.cache.nars[NARS[0]]
        assert isinstance(nar, StubNar)
        gate: Deferred[None] = Deferred()
        nar._pieces = [*nar._pieces, gate]
        self.client.takes = 400
        self.client.send(nar_head(NARS[0]))
        self.client.leave()
        access = self.server.logged[-1]
        self.assertFalse(access.is_complete)
        self.assertFalse(access.is_hot)
        self.assertEqual(0, self.server.site.answering)

    def test_rest_that_turns_out_wrong_cuts_the_connection(self) -> None:
        """The core learns it; the client sees an incomplete answer."""
        nar = self.server.cache.nars[NARS[0]]
        assert isinstance(nar, StubNar)
        nar._pieces = [Corrupt("wrong")]
        self.client.takes = 400
        self.client.send(nar_head(NARS[0]))
        self.assertFalse(self.client.response().whole)
        self.assertTrue(self.client.lost)
        self.assertEqual(["wrong"], nar.complaints)

    def test_hot_nar_and_a_busy_or_draining_server(self) -> None:
        """Limits hold, and a server that stops tells clients to close."""
        self.server.site.answering = self.server.site.limits.max_requests
        self.assertTrue(self.is_taken(nar_head(NARS[0])))
        self.assertEqual(503, self.client.response().status)
        self.server.site.answering = 0
        draining = Deferred.fromCoroutine(self.server.site.drain(30.0))
        self.assertEqual(0, len(self.server.hot_nars))
        self.client.leave()
        self.successResultOf(draining)

    def test_reads_that_are_closed_or_opened(self) -> None:
        """Answers made under the former rules are not sent again."""
        self.assertTrue(self.is_taken(nar_head(NARS[0])))
        self.server.site.read_by(None)
        self.assertEqual(0, len(self.server.hot_nars))
        self.assertFalse(self.is_taken(nar_head(NARS[0])))
        self.assertTrue(self.is_taken(nar_head(NARS[0])))
        self.server.site.read_by(lambda connection, headers: None)
        for _ in range(2):  # an answer for everybody is not kept where reads are closed
            self.assertFalse(self.is_taken(nar_head(NARS[0])))
        self.assertEqual(0, len(self.server.hot_nars))

    def test_answer_to_a_misled_client_is_not_for_others(self) -> None:
        """Only this client gets `Accept-Ranges: none`."""
        self.server.cache.nar_changed(NARS[0])
        other = self.server.connect()
        self.server.site.misled.add(other.getPeer().host, NARS[0].file_name, 500, 500)
        other.ask(f"/{NARS[0].url}", range="bytes=400-")
        told = other.response()
        self.assertEqual((200, "none"), (told.status, told.headers["accept-ranges"]))
        for is_taken in (False, True):
            self.assertEqual(is_taken, self.is_taken(nar_head(NARS[0])))
            self.assertEqual("bytes", self.client.response().headers["accept-ranges"])

    def test_rest_is_a_part_of_the_span_of_its_request(self) -> None:
        """A trace shows the rest of an answer that a short cut began."""
        tracer = self.server.site.tracer = MemoryTracer()
        nar = self.server.cache.nars[NARS[0]]
        assert isinstance(nar, StubNar)
        body, within = nar.body, list[Span]()

        async def body_seen(start: int = 0, stop: int | None = None) -> ScriptedBody:
            within.append(current())
            return await body(start, stop)

        self.patch(nar, "body", body_seen)
        self.client.takes = 400
        self.client.send(nar_head(NARS[0]))
        self.assertTrue(self.client.response().whole)
        self.assertEqual([span for span, _ in tracer.begun], within)
        self.assertEqual(1, len(within))
