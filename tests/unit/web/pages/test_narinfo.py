"""Narinfos over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.errors import Unavailable
from ncps.web.request import NcpsRequest
from tests.fakes.cache import served_narinfo
from tests.unit.web.wire import Server

DIGEST = "0" * 32
PATH = f"/{DIGEST}.narinfo"
TEXT = b"StorePath: /nix/store/x\n"


class ClientOfSomePaths:
    """Permits one client to read some paths."""

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """See `ncps.web.guard.RouteGuard`."""
        read = frozenset({Scope.READ})
        request.principal = Principal(name="ci", scopes=read, paths=re.compile("0{32}-a"))
        go_on()


class NarInfoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.cache = self.server.cache

    def serve(self, outcome: Outcome = Outcome.HIT, text: bytes = TEXT) -> None:
        self.cache.narinfos[DIGEST] = served_narinfo(
            text=text, outcome=outcome, upstream="up.example"
        )

    def test_narinfo_is_served_with_length_and_type(self) -> None:
        """A narinfo has its length, its type and the outcome."""
        self.serve()
        response = self.server.get(PATH)
        self.assertEqual((response.status, response.body), (200, TEXT))
        self.assertEqual(response.headers["content-type"], "text/x-nix-narinfo")
        self.assertEqual(response.headers["content-length"], str(len(TEXT)))
        self.assertEqual(response.headers["x-cache"], "hit")
        self.assertEqual(response.headers["server-timing"], "total;dur=0.0")
        self.assertEqual(response.headers["cache-control"], "public, max-age=60")

    def test_outcomes_are_named_and_counted(self) -> None:
        """Every outcome is named, and counted as a hit or a miss."""
        for outcome in Outcome:
            self.serve(outcome)
            self.assertEqual(self.server.get(PATH).headers["x-cache"], outcome.value)
        counts = {
            result: self.server.sample(
                "ncps_narinfo_served_total",
                result=result,
                status="success",
                source="database",
                upstream_hostname="up.example",
            )
            for result in ("hit", "miss")
        }
        self.assertEqual(counts, {"hit": 1, "miss": len(Outcome) - 1})

    def test_head_has_headers_of_get(self) -> None:
        """HEAD asks the cache just as GET does."""
        self.serve()
        get, head = self.server.get(PATH), self.server.get(PATH, b"HEAD")
        del head.headers["date"], get.headers["date"]  # a second may end between them
        self.assertEqual(head.headers, get.headers)
        self.assertEqual(self.cache.asked, [DIGEST, DIGEST])

    def test_a_question_by_get_may_lead_on(self) -> None:
        """HEAD starts no prefetch, nor does a client that uploads."""
        self.serve()
        self.server.get(PATH, b"HEAD")
        self.server.get(f"/upload{PATH}")
        self.assertEqual(self.cache.led_on, [])
        self.server.get(PATH)
        self.assertEqual(self.cache.led_on, [DIGEST])

    def test_a_client_of_some_paths_leads_to_no_others(self) -> None:
        """It may not be permitted to read the references, or the path."""
        server = Server(guard=ClientOfSomePaths())
        server.cache.narinfos[DIGEST] = served_narinfo(text=TEXT, outcome=Outcome.MISS)
        self.assertEqual(server.get(PATH).status, 403)
        self.assertEqual(server.cache.led_on, [])

    def test_etag_is_what_is_held_with_the_text(self) -> None:
        """It is not computed again for each request."""
        held = ServedNarInfo(text=TEXT, tag=b'"held"', outcome=Outcome.HIT)
        self.cache.narinfos[DIGEST] = held
        self.assertEqual(self.server.get(PATH).headers["etag"], '"held"')

    def test_etag_changes_with_text(self) -> None:
        """A narinfo with another signature has another tag."""
        self.serve()
        first = self.server.get(PATH).headers["etag"]
        self.assertEqual(self.server.get(PATH).headers["etag"], first)
        self.serve(text=TEXT + b"Sig: a:b\n")
        self.assertNotEqual(self.server.get(PATH).headers["etag"], first)

    def test_if_none_match_gives_304(self) -> None:
        """A proxy that has the same text does not get it again."""
        self.serve()
        etag = self.server.get(PATH).headers["etag"]
        client = self.server.connect()
        client.ask(PATH, if_none_match=etag)
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        self.assertEqual(client.response().status, 304)
        self.assertEqual(self.server.get(PATH, if_none_match='"other"').status, 200)

    def test_absence_says_how_it_is_known(self) -> None:
        """A 404 from memory has another outcome than a new one."""
        for outcome in (Outcome.NEGATIVE, Outcome.MISS):
            self.cache.narinfos[DIGEST] = Absent("upstream said 404", outcome=outcome)
            response = self.server.get(PATH)
            self.assertEqual(response.status, 404)
            self.assertEqual(response.headers["x-cache"], outcome.value)
            self.assertEqual(response.body, b"not found\n")

    def test_unavailable_upstreams_are_no_absence(self) -> None:
        """If no upstream can be asked, the client gets Retry-After."""
        self.cache.narinfos[DIGEST] = Unavailable("secret.internal refused", retry_after=3)
        response = self.server.get(PATH)
        self.assertEqual((response.status, response.headers["retry-after"]), (503, "3"))
        self.assertNotIn(b"secret", response.body)

    def test_client_leaving_cancels(self) -> None:
        """The request is cancelled, and logged as not complete."""
        cancelled: list[object] = []
        self.cache.gate = Deferred(cancelled.append)
        client = self.server.connect()
        client.ask(PATH)
        client.leave()
        self.assertEqual(len(cancelled), 1)
        (access,) = self.server.logged
        self.assertEqual((access.is_complete, access.digest), (False, DIGEST))

    def test_answer_after_wait_is_sent(self) -> None:
        """A narinfo that has to be fetched is sent when it comes."""
        self.serve()
        gate = self.cache.gate = Deferred()
        client = self.server.connect()
        client.ask(PATH)
        self.assertEqual(client.value(), b"")
        self.server.clock.advance(1.25)
        gate.callback(None)
        response = client.response()
        self.assertEqual(response.body, TEXT)
        self.assertIn("total;dur=1250.0", response.headers["server-timing"])
