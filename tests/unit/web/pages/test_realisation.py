"""Realisations over HTTP: paths of all releases of Nix, reads, uploads and deletions."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import Absent, Outcome, RealisationUpload, ServedRealisation
from ncps.errors import (
    Conflict,
    Corrupt,
    Malformed,
    NcpsError,
    Refused,
    StorageFull,
    Unavailable,
)
from ncps.nix.realisation import MAX_SIZE, RealisationKey
from ncps.observe.metrics import Metrics
from ncps.ranges import entity_tag
from ncps.web.grammar import realisations
from ncps.web.pages.realisation import RealisationPages
from ncps.web.request import NcpsRequest
from ncps.web.routes import Route, Routes
from tests.fakes.cache import StubRealisations
from tests.fakes.metrics import series
from tests.unit.web.wire import Response, Server

DIGEST = "0123456789abcdfghijklmnpqrsvwxyz"
OLD = RealisationKey("sha256:" + "ab" * 32, "out")
NEW = RealisationKey(f"{DIGEST}-libc++-1.0.drv", "dev")
TEXT = b'{"outPath":"x"}'


def opened(route: Route) -> Route:
    """Return the route for a client with all scopes."""
    verbs, uploads = (
        {method: evolve(verb, scope=None) for method, verb in each.items()}
        for each in (route.verbs, route.uploads)
    )
    return evolve(route, verbs=verbs, uploads=uploads)


class OneClient:
    """Permits one client."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        request.principal = self._principal
        go_on()


class RealisationPagesCase(SynchronousTestCase):
    is_open = True
    """Whether the client may write and delete."""

    def setUp(self) -> None:
        self.cache = StubRealisations()
        self.metrics = Metrics()
        self.routes = realisations(RealisationPages(self.cache, self.metrics))
        routes = [opened(route) if self.is_open else route for route in self.routes]
        self.server = Server(more=routes)

    def serve(self, key: RealisationKey, outcome: Outcome = Outcome.HIT) -> None:
        self.cache.found[key] = ServedRealisation(
            TEXT, entity_tag(TEXT), outcome, "up.example", f"{DIGEST}-libc++-1.0"
        )

    def put(self, path: str, body: bytes = TEXT) -> Response:
        client = self.server.connect()
        client.ask(path, b"PUT", content_length=str(len(body)))
        client.send(body)
        response = client.response()
        client.leave()
        return response


class ReadTests(RealisationPagesCase):
    def test_every_release_names_them_in_its_own_way(self) -> None:
        """To 2.33 plain, 2.34 escaped; `.doi` may be missing; below /upload, too."""
        for key, paths in (
            (
                OLD,
                (
                    f"/realisations/sha256:{'ab' * 32}!out.doi",
                    f"/realisations/sha256:{'ab' * 32}%21out.doi",
                    f"/realisations/sha256%3A{'ab' * 32}%21out.doi",
                    f"/realisations/sha256%3a{'ab' * 32}!out",
                ),
            ),
            (
                NEW,
                (
                    f"/build-trace-v2/{NEW.derivation}/dev.doi",
                    f"/build-trace-v2/{NEW.derivation}/dev",
                    f"/build-trace-v2/{NEW.derivation.replace('+', '%2B')}/dev.doi",
                ),
            ),
        ):
            self.serve(key)
            for path in paths:
                self.assertEqual(TEXT, self.server.get(path).body, path)
                self.assertEqual(TEXT, self.server.get(f"/upload{path}").body, path)
            self.assertEqual([(key, False), (key, True)], self.cache.asked[-2:])

    def test_other_paths_ask_no_upstream(self) -> None:
        """Names that lead elsewhere, other hashes, more escapes than there should be."""
        for path in (
            "/realisations/",
            "/realisations/x",
            f"/realisations/sha256:{'ab' * 32}",
            f"/realisations/sha256:{'AB' * 32}!out.doi",
            f"/realisations/sha256:{'ab' * 32}!..%2Fout.doi",
            f"/realisations/sha256:{'ab' * 32}%2521out.doi",
            f"/realisations/sha256:{'ab' * 32}!out.doi/",
            f"/realisations/sha256:{'ab' * 32}!out%00.doi",
            f"/realisations/sha256:{'ab' * 32}!%ff.doi",
            f"/build-trace-v2/{NEW.derivation}",
            f"/build-trace-v2/{NEW.derivation}/",
            f"/build-trace-v2/{NEW.derivation}/a/b.doi",
            f"/build-trace-v2/{NEW.derivation}/%2e%2e.doi",
            "/build-trace-v2/..%2F..%2Fetc/passwd.doi",
            f"/build-trace/{NEW.derivation}/out.doi",
            "/build-trace-v2/" + "a" * 5000 + "/out.doi",
        ):
            self.assertEqual(404, self.server.get(path).status, path)
        self.assertEqual([], self.cache.asked)

    def test_answers_are_typed_tagged_and_counted(self) -> None:
        """HEAD has the headers of GET; a client with the same tag gets 304."""
        path = f"/{NEW.path}.doi"
        self.serve(NEW, Outcome.MISS)
        get, head = self.server.get(path), self.server.get(path, b"HEAD")
        for response in (get, head):
            self.assertEqual(200, response.status)
            self.assertEqual("application/json", response.headers["content-type"])
            self.assertEqual(str(len(TEXT)), response.headers["content-length"])
            self.assertEqual("miss", response.headers["x-cache"])
            self.assertEqual("public, max-age=60", response.headers["cache-control"])
        self.assertEqual(b"", head.body)
        same = self.server.get(path, if_none_match=get.headers["etag"])
        self.assertEqual((304, b""), (same.status, same.body))
        self.serve(NEW)
        self.server.get(path)
        self.server.get(f"/{OLD.path}.doi")
        self.cache.found[OLD] = Unavailable("away")
        self.server.get(f"/{OLD.path}.doi")
        counts = series(self.metrics.realisations_served)
        self.assertEqual({"miss": 3, "hit": 1, "absent": 1, "error": 1}, counts)

    def test_credentials_for_some_paths_read_realisations_of_these(self) -> None:
        """Others are 403, as are their narinfos."""
        self.serve(NEW)
        for names, status in (("libc.*", 200), ("hello-.*", 403)):
            principal = Principal(
                name="some", scopes=frozenset({Scope.READ}), paths=re.compile(f"{DIGEST}-{names}")
            )
            self.server.site.resource = Routes(self.routes, guard=OneClient(principal))
            for method in (b"GET", b"HEAD"):
                answer = self.server.get(f"/{NEW.path}.doi", method)
                self.assertEqual(status, answer.status)
                self.assertNotIn("etag" if status == 403 else "www-authenticate", answer.headers)

    def test_failures_have_the_status_of_their_kind(self) -> None:
        """Absence and failure differ, and the outcome is named."""
        for error, status, cache in (
            (Absent("no", outcome=Outcome.MISS), 404, "miss"),
            (Absent("no", outcome=Outcome.AWAY), 404, "away"),
            (Unavailable("x"), 503, None),
            (Unavailable("x", timed_out=True), 504, None),
            (Corrupt("x"), 502, None),
        ):
            self.cache.found[OLD] = error
            response = self.server.get(f"/{OLD.path}.doi")
            self.assertEqual(status, response.status)
            if cache is not None:
                self.assertEqual(cache, response.headers["x-cache"])
            if status > 500 and status != 502:
                self.assertIn("retry-after", response.headers)


class WriteTests(RealisationPagesCase):
    def test_uploads_are_taken_at_both_places(self) -> None:
        """201 for a new one, 200 for others; the text names the result."""
        for key in (OLD, NEW):
            for prefix in ("", "/upload"):
                self.assertEqual(201, self.put(f"{prefix}/{key.path}.doi").status)
                self.assertEqual((key, TEXT), self.cache.taken[-1][:2])
        for upload, text in (
            (RealisationUpload.SAME, b"already known\n"),
            (RealisationUpload.REPLACED, b"replaced another one\n"),
            (RealisationUpload.LEFT, b"another one is already known, and stays\n"),
        ):
            self.cache.upload = upload
            response = self.put(f"/{NEW.path}.doi")
            self.assertEqual((200, text), (response.status, response.body))
        counts = series(self.metrics.realisation_uploads)
        self.assertEqual({"created": 4, "same": 1, "replaced": 1, "left": 1}, counts)

    def test_refusals_say_what_is_wrong(self) -> None:
        """Each has the status of its kind, and is counted."""
        errors: tuple[tuple[NcpsError, int, str], ...] = (
            (Malformed("no outPath"), 400, "refused"),
            (Refused("no good signature"), 403, "refused"),
            (Conflict("another one"), 409, "conflict"),
            (StorageFull("full"), 507, "failed"),
            (Unavailable("away"), 503, "failed"),
        )
        for error, status, outcome in errors:
            self.cache.upload = error
            before = series(self.metrics.realisation_uploads).get(outcome, 0)
            response = self.put(f"/upload/{NEW.path}.doi")
            self.assertEqual(status, response.status)
            if status < 500:
                self.assertIn(str(error), response.body.decode())
            self.assertEqual(before + 1, series(self.metrics.realisation_uploads)[outcome])

    def test_long_ones_are_refused_and_not_cut(self) -> None:
        """413 before the body if its length is announced, else within it."""
        self.assertEqual(201, self.put(f"/{NEW.path}.doi", b" " * MAX_SIZE).status)
        client = self.server.connect()
        client.ask(f"/{NEW.path}.doi", b"PUT", content_length=str(MAX_SIZE + 1))
        self.assertEqual(413, client.response().status)
        client.leave()
        client = self.server.connect()
        client.ask(f"/{NEW.path}.doi", b"PUT", transfer_encoding="chunked")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(MAX_SIZE // 0x10000 + 1):
            client.send(chunk)
        self.assertEqual(413, client.response().status)
        client.leave()
        self.assertEqual(1, len(self.cache.taken))

    def test_deletion(self) -> None:
        """204 once, then 404; below /upload it does not exist."""
        self.serve(NEW)
        path = f"/{NEW.path}.doi"
        self.assertEqual(405, self.server.get(f"/upload{path}", b"DELETE").status)
        self.assertEqual(204, self.server.get(path, b"DELETE").status)
        self.assertEqual(404, self.server.get(path, b"DELETE").status)


class ClosedTests(RealisationPagesCase):
    is_open = False

    def test_writes_need_leave(self) -> None:
        """By default no client may write: 405 before the body, without asking the core."""
        for path in (f"/{OLD.path}.doi", f"/upload/{NEW.path}.doi"):
            client = self.server.connect()
            client.ask(path, b"PUT", content_length="100", expect="100-continue")
            self.assertEqual(405, client.response().status)
            client.leave()
        self.assertEqual(405, self.server.get(f"/{OLD.path}.doi", b"DELETE").status)
        self.assertEqual([], self.cache.taken)
