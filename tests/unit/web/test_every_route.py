"""Every route asks the guard, and every page keeps to the paths of a token.

The tables of these tests name each route. A new route makes them fail until it is in them.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import WrongCredentials
from ncps.auth.guard import AccessRules, Guard
from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import Outcome, ServedRealisation
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import RealisationKey
from ncps.observe.metrics import Metrics
from ncps.ranges import entity_tag
from ncps.web.access import CredentialGuard
from ncps.web.answer import tell
from ncps.web.api_routes import closures, pins, query, removals
from ncps.web.grammar import extras, realisations
from ncps.web.pages.bulk import ClosurePages, QueryPage
from ncps.web.pages.closures import PinPages, RemovalPages
from ncps.web.pages.extras import ExtraPages
from ncps.web.pages.realisation import RealisationPages
from ncps.web.request import NcpsRequest
from ncps.web.routes import Route, Routes, Verb
from tests.fakes.bulk import StubBulk
from tests.fakes.cache import StubRealisations, served_narinfo
from tests.fakes.credentials import StubCredentials
from tests.fakes.extras import StubExtras
from tests.fakes.threads import InlineThreads
from tests.fakes.verbs import StubClosures
from tests.unit.web.test_openapi import labels_in_code, routes
from tests.unit.web.wire import Response, Server

DIGEST: Final = "0" * 32
OTHER: Final = f"{DIGEST}-curl-8"
FILE: Final = NarKey("1" * 52, "xz")
BUILD_ID: Final = "ab" * 20
OLD: Final = RealisationKey("sha256:" + "ab" * 32, "out")
NEW: Final = RealisationKey(f"{OTHER}.drv", "out")

SAMPLES: Final = {
    "/": "/",
    "/api/v1/blocked": "/api/v1/blocked",
    "/api/v1/blocked/{hash}": f"/api/v1/blocked/{DIGEST}",
    "/api/v1/closure/{hash}": f"/api/v1/closure/{DIGEST}",
    "/api/v1/query": "/api/v1/query",
    "/api/v1/remove": "/api/v1/remove",
    "/build-trace-v2/{drv}/{output}": f"/{NEW.path}.doi",
    "/buildid/{id}/debuginfo": f"/buildid/{BUILD_ID}/debuginfo",
    "/cluster/nar/{file}": f"/cluster/nar/{FILE.file_name}",
    "/debuginfo/{id}": f"/debuginfo/{BUILD_ID}",
    "/healthz": "/healthz",
    "/log/{drv}": f"/log/{OTHER}.drv",
    "/metrics": "/metrics",
    "/nar/{file}": f"/nar/{FILE.file_name}",
    "/nix-cache-info": "/nix-cache-info",
    "/pin/{hash}.narinfo": f"/pin/{DIGEST}.narinfo",
    "/pins": "/pins",
    "/pubkey": "/pubkey",
    "/readyz": "/readyz",
    "/realisations/{id}": f"/{OLD.path}.doi",
    "/{hash}.ls": f"/{DIGEST}.ls",
    "/{hash}.narinfo": f"/{DIGEST}.narinfo",
}
"""A path of each route, by its label."""

UNGUARDED: Final = frozenset({"/healthz", "/readyz", "/cluster/nar/{file}"})
"""For probes, which have no tokens, and for replicas, which have tickets."""

SCOPES: Final = {
    b"GET": Scope.READ,
    b"HEAD": Scope.READ,
    b"PUT": Scope.WRITE,
    b"DELETE": Scope.DELETE,
}
"""The scope that a method needs, unless `OTHER_SCOPES` says otherwise."""

OTHER_SCOPES: Final = {
    (b"DELETE", "/pin/{hash}.narinfo"): Scope.PIN,
    (b"GET", "/api/v1/blocked"): Scope.DELETE,
    (b"HEAD", "/api/v1/blocked"): Scope.DELETE,
    (b"POST", "/api/v1/query"): Scope.READ,
    (b"POST", "/api/v1/remove"): Scope.DELETE,
    (b"POST", "/pin/{hash}.narinfo"): Scope.PIN,
}

ABOUT_NO_PATH: Final = frozenset({"/", "/metrics", "/nix-cache-info", "/pubkey", "/nar/{file}"})
"""Routes that each token for some paths may read: facts about the cache, and NARs, whose hash is
the leave to read them."""

BY_THE_CORE: Final = frozenset(
    {
        (b"DELETE", "/build-trace-v2/{drv}/{output}"),
        (b"DELETE", "/realisations/{id}"),
        (b"POST", "/api/v1/remove"),
        *((b"PUT", label) for label in SAMPLES),
    }
)
"""Acts whose path the core finds out, in a body or a table, and compares with the token."""


def expected_scope(method: bytes, label: str) -> Scope | None:
    if label in UNGUARDED:
        return None
    return OTHER_SCOPES.get((method, label)) or SCOPES[method]


class GuardTests(SynchronousTestCase):
    """Reads are closed."""

    def setUp(self) -> None:
        self.source = StubCredentials()
        self.source.known = {
            f"only-{scope.value}": Principal(name=scope.value, scopes=frozenset({scope}))
            for scope in Scope
        }
        self.source.asked = {
            "expired": WrongCredentials("the token has expired", "expired"),
            "revoked": WrongCredentials("the token has been revoked", "revoked"),
            "away": Unavailable("the database is away"),
        }
        self.entered: list[str] = []
        self.server = Server()
        guard = CredentialGuard(Guard([self.source], AccessRules(reads_are_open=False)))
        self.table = routes()
        self.server.site.resource = Routes([self._noted(r) for r in self.table], guard=guard)

    def _noted(self, route: Route) -> Route:
        """Return the route, with pages that only record the requests that reach them."""

        def act(request: NcpsRequest, _: re.Match[bytes]) -> None:
            self.entered.append(request.principal.name)
            tell(request, 200, "in")

        def noted(verb: Verb) -> Verb:
            return evolve(verb, act=act)

        return evolve(
            route,
            verbs={method: noted(verb) for method, verb in route.verbs.items()},
            uploads={method: noted(verb) for method, verb in route.uploads.items()},
        )

    def status(self, path: str, method: bytes, value: str = "") -> int:
        given = {"authorization": value} if value else {}
        if method == b"PUT":
            given["content_length"] = "0"
        return self.server.get(path, method, **given).status

    def test_every_route_is_in_the_table(self) -> None:
        """Also routes that are made outside the grammar."""
        labels = {route.label for route in self.table}
        self.assertEqual(labels, set(SAMPLES))
        self.assertEqual(set(), labels_in_code() - labels)

    def test_the_scope_of_each_verb(self) -> None:
        """Verbs without a scope are for probes or replicas; others ask the guard."""
        for route in self.table:
            for verbs in (route.verbs, route.uploads):
                for method, verb in verbs.items():
                    scope = expected_scope(method, route.label)
                    self.assertIs(scope, verb.scope, (method, route.label))

    def test_no_request_passes_the_guard_unchecked(self) -> None:
        """Without credentials, with wrong ones, and with each single scope."""
        for route in self.table:
            for prefix, verbs in (("", route.verbs), ("/upload", route.uploads)):
                path = prefix + SAMPLES[route.label]
                for method, verb in verbs.items():
                    if verb.scope is not None:
                        self._check(path, method, verb.scope)

    def _check(self, path: str, method: bytes, needed: Scope) -> None:
        about = (method, path)
        for value, status in (
            ("", 401),
            ("Bearer unknown", 401),
            ("Bearer expired", 401),
            ("Bearer revoked", 401),
            ("Bearer away", 503),
            ("Basic eDp1bmtub3du", 401),
            ("Digest x", 400),
        ):
            self.assertEqual(status, self.status(path, method, value), (*about, value))
        self.assertEqual([], self.entered, about)
        for scope in Scope:
            is_right = scope in {needed, Scope.ADMIN}
            status = self.status(path, method, f"Bearer only-{scope.value}")
            self.assertEqual(200 if is_right else 403, status, (*about, scope))
        self.assertEqual({needed.value, "admin"}, set(self.entered), about)
        self.entered.clear()


class SomePathsTests(SynchronousTestCase):
    """A token with `--path` for other paths than the requested ones."""

    def setUp(self) -> None:
        some = Principal(
            name="some", scopes=frozenset(Scope) - {Scope.ADMIN}, paths=re.compile(r".*-hello-.*")
        )
        every = Principal(name="every", scopes=frozenset({Scope.ADMIN}))
        source = StubCredentials()
        source.known = {"some": some, "every": every}
        self.extras = StubExtras()
        self.realisations = StubRealisations()
        self.verbs = StubClosures()
        pages = ExtraPages(self.extras, Metrics(), Clock())
        self.server = Server(
            more=[
                query(QueryPage(StubBulk(), InlineThreads())),
                closures(ClosurePages(StubBulk())),
                *realisations(RealisationPages(self.realisations, Metrics())),
                *extras(pages),
                *pins(PinPages(self.verbs)),
                *removals(RemovalPages(self.verbs)),
            ],
            credentials=CredentialGuard(Guard([source], AccessRules(reads_are_open=False))),
            removals=RemovalPages(self.verbs),
        )
        self.fill(OTHER)

    def fill(self, base: str) -> None:
        """Make all requested objects belong to this store path."""
        text = f"StorePath: /nix/store/{base}\n".encode()
        narinfo = served_narinfo(text=text, outcome=Outcome.HIT, may_repeat=lambda: True)
        self.server.cache.narinfos[DIGEST] = narinfo
        self.server.uploads.shown[DIGEST] = narinfo
        self.server.cache.add_nar(FILE, b"nar", size=3)
        self.server.uploads.nars[FILE] = b"nar", 3
        self.extras.about = self.verbs.base = base
        self.extras.texts = {
            f"log {OTHER}.drv": b"log",
            f"listing {DIGEST}": b"{}",
            f"link {BUILD_ID}": b"{}",
            f"symbols {BUILD_ID}": b"symbols",
        }
        for key in (OLD, NEW):
            self.realisations.found[key] = ServedRealisation(
                b"{}", entity_tag(b"{}"), Outcome.HIT, path=base
            )

    def ask(self, path: str, method: bytes, token: str, **headers: str) -> Response:
        return self.server.get(path, method, authorization=f"Bearer {token}", **headers)

    def test_pages_keep_to_the_paths_of_a_token(self) -> None:
        """By GET and HEAD, below `/upload` too, and with a matching tag."""
        root = self.server.site.resource
        assert isinstance(root, Routes)
        self.assertEqual(set(SAMPLES), {route.label for route in root.table})
        for route in root.table:
            for prefix, verbs in (("", route.verbs), ("/upload", route.uploads)):
                path = prefix + SAMPLES[route.label]
                for method, verb in verbs.items():
                    if verb.scope is not None and (method, route.label) not in BY_THE_CORE:
                        self._check(route.label, path, method)

    def _check(self, label: str, path: str, method: bytes) -> None:
        about = (method, path)
        is_read = method in {b"GET", b"HEAD"}
        if is_read:
            self.assertEqual(200, self.ask(path, method, "every").status, about)
        status = 200 if is_read and label in ABOUT_NO_PATH else 403
        self.assertEqual(status, self.ask(path, method, "some").status, about)
        if status == 403:
            self.assertEqual(403, self.ask(path, method, "some", if_none_match="*").status, about)

    def test_paths_that_the_token_is_for(self) -> None:
        """They are read as with any other token."""
        self.fill(f"{DIGEST}-hello-2")
        for path in (SAMPLES["/{hash}.narinfo"], SAMPLES["/{hash}.ls"], f"/{OLD.path}.doi"):
            for prefix in ("", "/upload"):
                self.assertEqual(200, self.ask(prefix + path, b"GET", "some").status, path)
