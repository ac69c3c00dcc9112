"""Queries about many paths over HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from ncps.cache.answers import Absent, Outcome
from ncps.cache.bulk.answers import MOST_HASHES, ClosurePath, PathState, Where
from ncps.errors import Busy, Unavailable
from ncps.web.api_routes import closures, query
from ncps.web.pages.bulk import MOST_BYTES, ClosurePages, QueryPage
from tests.fakes.bulk import StubBulk, StubClosure
from tests.fakes.threads import InlineThreads
from tests.unit.web.wire import DIGEST, Client, Response, Server, ServerTestCase

OTHER = "1" * 32
PATH = f"/api/v1/closure/{DIGEST}"


class BulkCase(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bulk = StubBulk()
        more = [query(QueryPage(self.bulk, InlineThreads())), closures(ClosurePages(self.bulk))]
        self.server = Server(more=more)
        self.clock = self.server.clock


class QueryTests(BulkCase):
    def post(self, body: bytes, method: bytes = b"POST") -> Response:
        client = self.server.connect()
        client.ask("/api/v1/query", method, Content_Length=str(len(body)))
        client.send(body)
        response = client.response()
        client.leave()
        return response

    def ask(self, question: object) -> Any:
        response = self.post(json.dumps(question).encode())
        self.assertEqual(
            (200, "application/json"), (response.status, response.headers["content-type"])
        )
        return json.loads(response.body)

    def test_where_paths_are(self) -> None:
        """Each path has an object with all known facts."""
        self.bulk.states[DIGEST] = PathState(
            DIGEST, Where.STORED, f"{DIGEST}-hello", "up.example", 2000, 1000
        )
        found = self.ask({"hashes": [DIGEST, OTHER]})
        facts = {
            "hash": DIGEST,
            "where": "stored",
            "storePath": f"/nix/store/{DIGEST}-hello",
            "upstream": "up.example",
            "narSize": 2000,
            "fileSize": 1000,
        }
        self.assertEqual({"paths": [facts, {"hash": OTHER, "where": "unknown"}]}, found)
        self.assertEqual([([DIGEST, OTHER], False)], self.bulk.asked)

    def test_upstreams_are_asked_if_wished(self) -> None:
        """The query says whether to ask upstreams."""
        self.ask({"hashes": [DIGEST], "upstreams": True})
        self.assertEqual([([DIGEST], True)], self.bulk.asked)

    def test_malformed_questions(self) -> None:
        """The answer says what is wrong; the cache is not asked."""
        for body, part in (
            (b"", b"not JSON"),
            (b"{", b"not JSON"),
            (b"\xff", b"not JSON"),
            (b"[" * 100_000, b"not JSON"),
            (b"1" * 10_000, b"not JSON"),
            (b"[]", b"an object"),
            (b'{"hash": []}', b"an object"),
            (b"{}", b"a list"),
            (b'{"hashes": "x"}', b"a list"),
            (b'{"hashes": [], "upstreams": 1}', b"true or false"),
            (b'{"hashes": [1]}', b"has 1;"),
            (b'{"hashes": ["\\ud800"]}', b"first 32 characters"),
            (json.dumps({"hashes": [DIGEST[:-1]]}).encode(), b"first 32 characters"),
            (json.dumps({"hashes": ["e" * 32]}).encode(), b"first 32 characters"),
        ):
            response = self.post(body)
            self.assertEqual(400, response.status, body[:50])
            self.assertIn(part, response.body)
        self.assertEqual([], self.bulk.asked)

    def test_limits(self) -> None:
        """A query has at most 10,000 hashes and 1 MiB."""
        self.ask({"hashes": [DIGEST] * MOST_HASHES})
        response = self.post(json.dumps({"hashes": [DIGEST] * (MOST_HASHES + 1)}).encode())
        self.assertEqual(413, response.status)
        self.assertIn(b"10001 entries; at most 10000", response.body)
        client = self.server.connect()
        client.ask("/api/v1/query", b"POST", Content_Length=str(MOST_BYTES + 1))
        response = client.response()
        self.assertEqual(413, response.status)
        self.assertIn(b"at most %d" % MOST_BYTES, response.body)
        client.leave()

    def test_errors(self) -> None:
        """A catalog that is away or late is 503; too many queries get Retry-After."""
        late = Unavailable("late", timed_out=True)
        for error in (Unavailable("away"), late, Busy("too many", retry_after=7)):
            self.bulk.failing = error
            response = self.post(b'{"hashes": []}')
            self.assertEqual((503, b"not available now\n"), (response.status, response.body))

    def test_it_is_asked_by_post_alone(self) -> None:
        """The answer to other methods names POST."""
        response = self.server.get("/api/v1/query")
        self.assertEqual((405, "POST, OPTIONS"), (response.status, response.headers["allow"]))


class ClosureTests(BulkCase):
    def lines(self, response: Response) -> list[Any]:
        self.assertEqual(
            (200, "application/x-ndjson"), (response.status, response.headers["content-type"])
        )
        return [json.loads(line) for line in response.body.splitlines()]

    def test_a_line_for_each_path_and_one_at_the_end(self) -> None:
        """Missing paths are named; the last line has the counts."""
        base = f"{DIGEST}-hello"
        here = ClosurePath(DIGEST, base, b"StorePath: x\n", Where.STORED)
        gone = ClosurePath(OTHER, f"{OTHER}-lib", b"", Where.ABSENT)
        closure = self.bulk.next_closure = StubClosure([[here], [gone]])
        response = self.server.get(PATH)
        self.assertTrue(response.whole)
        expected = [
            {
                "hash": DIGEST,
                "where": "stored",
                "storePath": f"/nix/store/{base}",
                "narinfo": "StorePath: x\n",
            },
            {"hash": OTHER, "where": "absent", "storePath": f"/nix/store/{OTHER}-lib"},
            {"end": True, "paths": 2, "missing": 1, "cut": False},
        ]
        self.assertEqual(expected, self.lines(response))
        self.assertEqual((1, [([DIGEST], False)]), (closure.closed, self.bulk.asked))

    def test_fetching(self) -> None:
        """`?fetch=1` fetches narinfos; any other query string is an error."""
        for text, fetch in (("", False), ("?", False), ("?fetch=0", False), ("?fetch=1", True)):
            self.bulk.asked.clear()
            self.assertEqual(200, self.server.get(PATH + text).status)
            self.assertEqual([([DIGEST], fetch)], self.bulk.asked)
        for text in ("?fetch=yes", "?fetch=1&label=secret", "?x"):
            response = self.server.get(PATH + text)
            self.assertEqual(400, response.status)
            self.assertIn(b"fetch=1", response.body)
            self.assertNotIn(b"secret", response.body)

    def test_a_closure_that_is_not_here(self) -> None:
        """The answer is a 404."""
        for error, status in (
            (Absent("no", outcome=Outcome.MISS), 404),
            (Unavailable("away"), 503),
            (Busy("too many"), 503),
        ):
            self.bulk.next_closure = error
            self.assertEqual(status, self.server.get(PATH).status)

    def test_a_failure_in_the_middle_cuts_the_connection(self) -> None:
        """No client mistakes a part for the whole."""
        path = ClosurePath(DIGEST, f"{DIGEST}-x", b"text\n", Where.STORED)
        closure = self.bulk.next_closure = StubClosure([[path], Unavailable("away")])
        client = self.server.connect()
        client.ask(PATH)
        self.assertTrue(client.lost)
        self.assertFalse(client.response().whole)
        self.assertEqual(1, closure.closed)

    def test_head(self) -> None:
        """Only the path itself is searched."""
        closure = self.bulk.next_closure = StubClosure([Unavailable("not asked")])
        response = self.server.get(PATH, b"HEAD")
        self.assertEqual(
            (200, "application/x-ndjson", b""),
            (response.status, response.headers["content-type"], response.body),
        )
        self.assertEqual(1, closure.closed)

    def open(self, closure: StubClosure) -> Client:
        self.bulk.next_closure = closure
        client = self.server.connect()
        client.is_slow = True
        client.ask(PATH)
        return client

    def test_a_slow_client_holds_one_batch(self) -> None:
        """Further paths are read when the client has taken these."""
        path = ClosurePath(DIGEST, f"{DIGEST}-x", b"text\n", Where.STORED)
        second: Deferred[None] = Deferred()
        client = self.open(StubClosure([[path], second, [path]]))
        second.callback(None)
        self.assertEqual(1, client.value().count(DIGEST.encode() + b'","where'))
        client.is_slow = False
        assert client.producer is not None
        client.producer.resumeProducing()
        self.assertEqual(3, len(self.lines(client.response())))
        client.leave()

    def test_a_client_that_leaves_ends_it(self) -> None:
        """The search is closed, and nothing waits."""
        path = ClosurePath(DIGEST, f"{DIGEST}-x", b"text\n", Where.STORED)
        waiting: Deferred[None] = Deferred()
        closure = StubClosure([[path], waiting])
        client = self.open(closure)
        assert client.producer is not None
        client.producer.resumeProducing()
        client.leave()
        self.assertEqual(1, closure.closed)
        self.assertTrue(waiting.called)
        self.assertEqual([], self.server.timers)
