"""Pins and removals over HTTP, in the Go program's form and with details."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.ask.policy import verdict
from ncps.auth.principal import Principal, Scope
from ncps.cache.closures.pinning import PinWish
from ncps.cache.closures.removing import RemovalWish
from ncps.errors import Conflict, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import Block, Blocked, Pin
from ncps.web.api_routes import pins, removals
from ncps.web.pages.closures import PinPages, RemovalPages
from ncps.web.request import NcpsRequest
from tests.fakes.verbs import AT, StubClosures
from tests.unit.web.wire import DIGEST, Response, Server

KEY = NarKey(sha256_of(b"").nix32, "xz")
EVERYTHING = Principal(name="ci", scopes=frozenset(Scope))


class AllowingGuard:
    """Permits one principal its scopes."""

    def __init__(self) -> None:
        self.principal = EVERYTHING
        self.asked: list[Scope] = []

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """See `ncps.web.guard.RouteGuard`."""
        self.asked.append(scope)
        request.principal = self.principal
        go_on()


class ClosurePagesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.verbs = StubClosures()
        self.guard = AllowingGuard()
        pages = RemovalPages(self.verbs)
        more = [*pins(PinPages(self.verbs)), *removals(pages)]
        self.server = Server(more=more, removals=pages, guard=self.guard)

    def ask(self, path: str, method: str, body: str = "", **headers: str) -> Response:
        client = self.server.connect()
        if body:
            headers["content_length"] = str(len(body))
        client.ask(path, method.encode(), b"HTTP/1.1", **headers)
        if body:
            client.send(body.encode())
        return client.response()


class PinPagesTests(ClosurePagesCase):
    def pin(self, query: str = "", body: str = "", **headers: str) -> Response:
        return self.ask(f"/pin/{DIGEST}.narinfo{query}", "POST", body, **headers)

    def test_a_plain_pin_is_answered_as_the_go_program_does(self) -> None:
        """200 without a body."""
        answer = self.pin()
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(self.verbs.asked, [(DIGEST, PinWish())])
        self.assertEqual(self.guard.asked, [Scope.PIN])

    def test_a_pin_with_wishes(self) -> None:
        """In the query string, the body, or both; the answer lists missing paths."""
        wish = PinWish(label="a b", expires_s=90 * 86400.0, fetch=True)
        for query, body in (
            ("?label=a%20b&expires=90d&fetch=1", ""),
            ("", '{"label": "a b", "expires": "90d", "fetch": true}'),
            ("?fetch=1&label=x", '{"label": "a b", "expires": 7776000}'),
        ):
            answer = self.pin(query, body)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(self.verbs.asked.pop(), (DIGEST, wish))
            told = json.loads(answer.body)
            self.assertEqual(told["missingPaths"], ["1" * 32])
            self.assertEqual((told["paths"], told["missing"]), (2, 1))

    def test_a_client_that_takes_json_gets_it(self) -> None:
        """Also without wishes."""
        told = json.loads(self.pin(accept="application/json").body)
        self.assertEqual((told["hash"], told["expires"]), (DIGEST, None))

    def test_senseless_wishes(self) -> None:
        """400, with a text that says what is right."""
        for query, body in (
            ("?x=1", ""),
            ("?fetch=maybe", ""),
            ("?fetch=1&fetch=1&label=a&expires=1", ""),
            ("?fetch", "{}"),
            ("?expires=soon", ""),
            ("?%ff=1", ""),
            ("", "["),
            ("", "[]"),
            ("", "[" * 60_000),
            ("", '{"label": 1}'),
            ("", '{"other": 1}'),
        ):
            answer = self.pin(query, body)
            self.assertEqual(answer.status, 400, (query, body[:20]))
        self.assertIn(b"should be one of label, expires, fetch", self.pin("?x=1").body)
        self.assertEqual(self.pin(body="x" * 70_000).status, 413)
        self.assertEqual(self.verbs.asked, [])

    def test_errors(self) -> None:
        """An absent narinfo is 404; a database that is away or late is 503, no upstream's fault."""
        for error, status, text in (
            (NotFound("x"), 404, b"not found: x\n"),
            (Unavailable("x"), 503, b"not available now\n"),
            (Unavailable("x", timed_out=True), 503, b"not available now\n"),
        ):
            self.verbs.failing = error
            answer = self.pin()
            self.assertEqual((answer.status, answer.body), (status, text))

    def test_upstreams_that_are_late(self) -> None:
        """If an upstream was asked and is late, the answer is 504 and names it."""
        failures = {"cache.example.org": Unavailable("silent", timed_out=True)}
        self.verbs.failing = verdict(failures, "x")
        answer = self.pin("?fetch=1")
        text = b"no answer in time: could not tell whether there is x: cache.example.org (silent)\n"
        self.assertEqual((answer.status, answer.body), (504, text))

    def test_a_blocked_path_is_refused(self) -> None:
        """403 with a text for a write; 404 for a read."""
        self.verbs.failing = self.server.cache.narinfos[DIGEST] = Blocked("it is blocked here")
        answer = self.pin()
        self.assertEqual((answer.status, b"blocked" in answer.body), (403, True))
        self.assertEqual(self.server.get(f"/{DIGEST}.narinfo").status, 404)

    def test_unpinning_is_200_in_any_case(self) -> None:
        """Also without a pin."""
        answer = self.ask(f"/pin/{DIGEST}.narinfo", "DELETE")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(self.guard.asked, [Scope.PIN])

    def test_other_paths(self) -> None:
        """A wrong hash is 404, another method 405."""
        self.assertEqual(self.ask("/pin/x.narinfo", "POST").status, 404)
        self.assertEqual(self.ask(f"/pin/{DIGEST}.narinfo", "GET").status, 405)
        self.assertEqual(self.ask(f"/upload/pin/{DIGEST}.narinfo", "POST").status, 404)

    def test_the_list_is_that_of_the_go_program(self) -> None:
        """A JSON array of roots, empty without pins."""
        answer = self.ask("/pins", "GET")
        self.assertEqual((answer.status, answer.body), (200, b"[]\n"))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.verbs.rows = [Pin(digest=letter * 32, created_at=AT) for letter in "01"]
        body = self.ask("/pins", "GET").body
        self.assertEqual(body, f'["{"0" * 32}","{"1" * 32}"]\n'.encode())
        self.assertEqual(self.guard.asked[-1], Scope.READ)

    def test_the_list_with_details(self) -> None:
        """Label, end, and facts about the closure."""
        self.verbs.rows = [Pin(digest=DIGEST, label="é", created_at=AT, expires_at=AT, paths=3)]
        (told,) = json.loads(self.ask("/pins?details=1", "GET").body)
        self.assertEqual(
            (told["label"], told["expires"], told["paths"], told["looked"]),
            ("é", "2026-01-02T03:04:05Z", 3, None),
        )

    def test_a_token_for_other_paths(self) -> None:
        """403; a path without a known name is refused to such a token."""
        self.guard.principal = evolve(EVERYTHING, paths=re.compile(r".*-tool"))
        for base, status in ((f"{DIGEST}-tool", 200), (f"{DIGEST}-app", 403), (None, 403)):
            self.verbs.base = base
            self.assertEqual(self.pin().status, status, base)


class RemovalPagesTests(ClosurePagesCase):
    def test_deletions(self) -> None:
        """204 without a body, for narinfos and NARs; force is passed on."""
        for path, asked in (
            (f"/{DIGEST}.narinfo", (DIGEST, False)),
            (f"/{DIGEST}.narinfo?force=1", (DIGEST, True)),
            (f"/nar/{KEY.file_name}", (KEY, False)),
            (f"/nar/{KEY.file_name}?force=1", (KEY, True)),
        ):
            answer = self.ask(path, "DELETE")
            self.assertEqual((answer.status, answer.body), (204, b""), path)
            self.assertEqual(self.verbs.asked.pop(), asked)
        self.assertEqual(set(self.guard.asked), {Scope.DELETE})

    def test_deletions_that_are_refused(self) -> None:
        """Absent is 404; pinned is 409, and the text names the root."""
        self.verbs.failing = NotFound("x")
        self.assertEqual(self.ask(f"/{DIGEST}.narinfo", "DELETE").status, 404)
        self.verbs.failing = Conflict("x is pinned by y")
        answer = self.ask(f"/nar/{KEY.file_name}", "DELETE")
        self.assertEqual((answer.status, answer.body), (409, b"conflict: x is pinned by y\n"))
        self.assertEqual(self.ask(f"/nar/{KEY.name}.nar.zip", "DELETE").status, 400)
        self.assertEqual(self.ask(f"/upload/{DIGEST}.narinfo", "DELETE").status, 405)

    def remove(self, **wish: Any) -> Response:
        return self.ask("/api/v1/remove", "POST", json.dumps(wish))

    def test_removals(self) -> None:
        """All wishes are passed on, each path once, and the report is the answer."""
        answer = self.remove(hashes=[DIGEST, DIGEST], closure=True, never_again=True, dry_run=True)
        self.assertEqual(answer.status, 200, answer.body)
        expected = RemovalWish(digests=(DIGEST,), closure=True, never_again=True, dry_run=True)
        self.assertEqual(self.verbs.asked, [expected])
        self.assertEqual(
            json.loads(answer.body),
            {"removed": ["a", "b"], "count": 2, "kept": 1, "busy": ["c"], "size": 7},
        )

    def test_senseless_removals(self) -> None:
        """400."""
        for wish in ({}, {"hashes": DIGEST}, {"hashes": ["x"]}, {"hashes": [7]}, {"x": 1}):
            self.assertEqual(self.remove(**wish).status, 400, wish)
        self.assertEqual(self.remove(hashes=[DIGEST], closure="x").status, 400)
        self.assertEqual(self.verbs.asked, [])

    def test_blocked_paths(self) -> None:
        """They are listed, and unblocked one by one."""
        self.assertEqual(self.ask(f"/api/v1/blocked/{DIGEST}", "DELETE").status, 404)
        self.verbs.blocks = [Block(digest=DIGEST, name="x", blocked_at=AT, hashes=(KEY.as_hash(),))]
        (told,) = json.loads(self.ask("/api/v1/blocked", "GET").body)
        self.assertEqual((told["hash"], told["name"]), (DIGEST, "x"))
        self.assertEqual(told["files"], [str(KEY.as_hash())])
        self.assertEqual(self.ask(f"/api/v1/blocked/{DIGEST}", "DELETE").status, 204)
        self.assertEqual(set(self.guard.asked), {Scope.DELETE})
