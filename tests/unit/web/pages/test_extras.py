"""Logs, listings and debug information over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.principal import Principal, Scope
from ncps.errors import Conflict, Malformed, StorageFull, Unavailable
from ncps.web.grammar import extras
from ncps.web.guard import OpenGuard
from ncps.web.pages.extras import ExtraPages
from ncps.web.request import NcpsRequest
from ncps.web.routes import Routes
from tests.fakes.extras import StubExtras
from tests.unit.web.wire import Response, Server

DIGEST = "0" * 32
DRV = f"{DIGEST}-a+b=c?d.drv"
BUILD_ID = "ab" * 20
LISTING = b'{"root":{"type":"regular"},"version":1}'


class ExtrasCase(SynchronousTestCase):
    scopes: tuple[Scope, ...] = (Scope.READ, Scope.WRITE)

    def setUp(self) -> None:
        self.server = Server()
        self.extras = StubExtras()
        pages = ExtraPages(self.extras, self.server.metrics, self.server.clock)
        self.server.site.resource = Routes(list(extras(pages)), guard=OpenGuard(self.scopes))

    def put(self, path: str, body: bytes, **headers: str) -> Response:
        client = self.server.connect()
        lines = [f"PUT {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        client.send("\r\n".join([*lines, "", ""]).encode() + body)
        response = client.response()
        client.leave()
        return response


class ReadingTests(ExtrasCase):
    def test_each_path_has_its_extra(self) -> None:
        """Logs are text, listings and links are JSON, symbols are bytes."""
        json = "application/json"
        for path, name, kind in (
            (f"/log/{DRV}", f"log {DRV}", "text/plain; charset=utf-8"),
            (f"/{DIGEST}.ls", f"listing {DIGEST}", json),
            (f"/debuginfo/{BUILD_ID}", f"link {BUILD_ID}", json),
            (f"/debuginfo/{BUILD_ID}.debug", f"link {BUILD_ID}", json),
            (f"/buildid/{BUILD_ID}/debuginfo", f"symbols {BUILD_ID}", "application/octet-stream"),
        ):
            for text in (b"text of it\n", b"", b"x" * 300_000):
                self.extras.texts[name] = text
                for method in (b"GET", b"HEAD"):
                    answer = self.server.get(path, method)
                    self.assertEqual(200, answer.status)
                    self.assertEqual(str(len(text)), answer.headers["content-length"])
                    self.assertEqual(b"" if method == b"HEAD" else text, answer.body)
                    self.assertEqual(kind, answer.headers["content-type"])
                    self.assertEqual("hit", answer.headers["x-cache"])
                    self.assertEqual("nosniff", answer.headers["x-content-type-options"])
        self.assertTrue(all(body.is_closed for body in self.extras.bodies))

    def test_question_marks_belong_to_the_name_of_a_log(self) -> None:
        """Nix 2.26 does not escape them; other clients do."""
        self.extras.texts[f"log {DRV}"] = b"text"
        quoted = f"{DIGEST}-a%2Bb%3Dc%3Fd.drv"
        for name in (DRV, quoted, quoted.lower()):
            self.assertEqual(200, self.server.get(f"/log/{name}").status)

    def test_absence_says_how_it_is_known(self) -> None:
        """404 with the outcome; an unknown state is 503; a wrong name is 404."""
        answer = self.server.get(f"/log/{DRV}")
        self.assertEqual((404, "negative"), (answer.status, answer.headers["x-cache"]))
        self.assertEqual("no-store", answer.headers["cache-control"])
        self.extras.texts[f"listing {DIGEST}"] = Unavailable("down")
        self.assertEqual(503, self.server.get(f"/{DIGEST}.ls").status)
        self.extras.texts[f"log {DIGEST}-x"] = Malformed("no derivation")
        self.assertEqual(404, self.server.get(f"/log/{DIGEST}-x").status)

    def test_other_paths_are_none(self) -> None:
        """Short names, upper case, and other paths of debuginfod are 404."""
        for path in (
            "/log/",
            "/log/x.drv",
            f"/log/{DIGEST}-../x.drv",
            f"/{DIGEST[1:]}.ls",
            f"/debuginfo/{BUILD_ID.upper()}",
            f"/debuginfo/{BUILD_ID}.debug.xz",
            f"/buildid/{BUILD_ID}/executable",
            f"/buildid/{BUILD_ID}/source/x.c",
            f"/upload/buildid/{BUILD_ID}/debuginfo",
        ):
            self.assertEqual(404, self.server.get(path).status, path)
        self.assertEqual([], self.extras.local)

    def test_no_upstream_is_asked_below_upload(self) -> None:
        """A client that may upload learns what is stored here."""
        for path in (f"/log/{DRV}", f"/{DIGEST}.ls", f"/debuginfo/{BUILD_ID}"):
            self.server.get(f"/upload{path}")
            self.server.get(path)
        self.assertEqual([True, False] * 3, self.extras.local)

    def test_slow_client_is_not_sent_everything_at_once(self) -> None:
        """Bytes stay in the store while a client reads nothing."""
        self.extras.texts[f"log {DRV}"] = b"x" * 10_000_000
        client = self.server.connect()
        client.is_slow = True
        client.ask(f"/log/{DRV}")
        self.assertLess(len(client.value()), 1_000_000)
        client.leave()
        self.assertTrue(self.extras.bodies[-1].is_closed)

    def test_answers_are_counted(self) -> None:
        """By kind and outcome."""
        self.extras.texts[f"log {DRV}"] = b"text"
        self.server.get(f"/log/{DRV}")
        self.server.get(f"/{DIGEST}.ls")
        count = self.server.sample
        self.assertEqual(1, count("ncps_extras_served_total", kind="log", result="hit"))
        self.assertEqual(1, count("ncps_extras_served_total", kind="listing", result="miss"))


class WritingTests(ExtrasCase):
    def test_log_is_taken(self) -> None:
        """201 for a new one, 200 for the same one again."""
        for status in (201, 200):
            self.assertEqual(status, self.put(f"/upload/log/{DRV}", b"text").status)
        self.put(f"/upload/log/{DRV}", b"text", content_encoding="br")
        self.assertEqual(
            [(DRV, b"text", ""), (DRV, b"text", ""), (DRV, b"text", "br")], self.extras.added
        )

    def test_link_is_taken(self) -> None:
        """Both names work."""
        self.put(f"/upload/debuginfo/{BUILD_ID}.debug", b"{}")
        self.put(f"/upload/debuginfo/{BUILD_ID}", b"{}")
        self.assertEqual([(BUILD_ID, b"{}", "")] * 2, self.extras.added)

    def test_listing_is_taken_and_dropped(self) -> None:
        """Any size, since it is not kept; other text is refused."""
        long = LISTING.replace(b'"regular"', b'"directory","entries":{' + b" " * 300_000 + b"}")
        for text in (LISTING, long):
            self.assertEqual(200, self.put(f"/upload/{DIGEST}.ls", text).status)
        encoded = self.put(f"/upload/{DIGEST}.ls", b"garbage", content_encoding="br")
        self.assertEqual(200, encoded.status)
        refused = self.put(f"/upload/{DIGEST}.ls", b"garbage")
        self.assertEqual(400, refused.status)
        self.assertIn(b"not a listing", refused.body)

    def test_too_much_is_refused(self) -> None:
        """A log or a link beyond its limit gets 413."""
        self.assertEqual(413, self.put(f"/upload/log/{DRV}", b"x" * 1001).status)
        self.assertEqual(413, self.put(f"/upload/debuginfo/{BUILD_ID}", b"x" * 5000).status)
        self.assertEqual([], self.extras.added)

    def test_errors_say_what_is_wrong(self) -> None:
        """A conflict is 409, a full store 507, a wrong link 400."""
        for error, status in (
            (Conflict("another log"), 409),
            (StorageFull("full"), 507),
            (Malformed("no link"), 400),
        ):
            self.extras.error = error
            self.assertEqual(status, self.put(f"/upload/debuginfo/{BUILD_ID}", b"{}").status)

    def test_root_takes_the_same(self) -> None:
        """For a cache that accepts uploads at its root (`only_below_upload`)."""
        self.assertEqual(201, self.put(f"/log/{DRV}", b"text").status)
        self.assertEqual(200, self.put(f"/debuginfo/{BUILD_ID}", b"{}").status)
        self.assertEqual(200, self.put(f"/{DIGEST}.ls", LISTING).status)


class ReadersTests(ExtrasCase):
    scopes = (Scope.READ,)

    def test_reader_may_not_write(self) -> None:
        """Without the scope write, the body is not read or kept."""
        for path in (f"/upload/log/{DRV}", f"/upload/{DIGEST}.ls", f"/upload/debuginfo/{BUILD_ID}"):
            self.assertEqual(405, self.put(path, b"text").status)
        self.assertEqual([], self.extras.added)


class ClientOfSomePaths:
    """Permits one client everything for some paths."""

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        pattern = re.compile("0{32}-(a|path-of-others)[^/]*")
        request.principal = Principal(name="ci", scopes=frozenset(Scope), paths=pattern)
        go_on()


class PathTests(ExtrasCase):
    def setUp(self) -> None:
        super().setUp()
        pages = ExtraPages(self.extras, self.server.metrics, self.server.clock)
        self.server.site.resource = Routes(list(extras(pages)), guard=ClientOfSomePaths())

    def test_credentials_for_some_paths(self) -> None:
        """They permit logs of these paths, but no other listings, links or symbols."""
        other = f"{DIGEST}-b.drv"
        for name in (f"log {DRV}", f"log {other}", f"listing {DIGEST}"):
            self.extras.texts[name] = b"text"
        self.assertEqual(200, self.server.get(f"/log/{DRV}").status)
        self.assertEqual(403, self.server.get(f"/log/{other}").status)
        self.assertEqual(403, self.server.get(f"/{DIGEST}.ls").status)
        self.assertEqual(201, self.put(f"/log/{DRV}", b"text").status)
        self.assertEqual(403, self.put(f"/log/{other}", b"text").status)
        self.assertEqual(403, self.put(f"/debuginfo/{BUILD_ID}", b"{}").status)
        self.assertEqual(1, len(self.extras.added))
        asked = len(self.extras.local)
        for path in (f"/debuginfo/{BUILD_ID}", f"/buildid/{BUILD_ID}/debuginfo"):
            for text in (f"link {BUILD_ID}", f"symbols {BUILD_ID}"):
                self.extras.texts[text] = b"text"
            self.assertEqual(403, self.server.get(path).status)
        self.assertEqual(asked, len(self.extras.local))
        self.assertTrue(all(body.is_closed for body in self.extras.bodies))
