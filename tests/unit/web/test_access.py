"""The credentials of requests, and the answers to requests that they do not permit."""

from __future__ import annotations

import base64
import re

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import ClientCertificate, Credentials
from ncps.auth.guard import AccessRules, Guard, TooManyFailures
from ncps.auth.principal import Principal, Scope
from ncps.auth.tokens import new_token
from ncps.auth.vouched import CertificateClients, ProxyUsers
from ncps.cache.answers import Outcome
from ncps.errors import Unavailable
from ncps.settings.kinds.auth import PROXY_RULE, TLS_RULE
from ncps.settings.schema.server import ServerSettings
from ncps.web.access import CredentialGuard
from ncps.web.answer import tell
from ncps.web.api_routes import closures, query
from ncps.web.pages.bulk import ClosurePages, QueryPage
from ncps.web.request import NcpsRequest
from ncps.web.routes import Route, Verb
from ncps.web.targets import has_secret
from ncps.web.vouched import ProxiedUsers
from tests.fakes.bulk import StubBulk
from tests.fakes.cache import served_narinfo
from tests.fakes.credentials import StubCredentials
from tests.fakes.spans import MemoryTracer
from tests.fakes.threads import InlineThreads
from tests.unit.auth.test_vouched import rules
from tests.unit.web.wire import Response, Server

READER = Principal(name="reader", scopes=frozenset({Scope.READ}))
WRITER = Principal(name="writer", scopes=frozenset({Scope.WRITE}))


class Slow(StubCredentials):
    """A source that names the principal when its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Deferred[None] | None = None
        self.seen: list[Credentials] = []
        self.left = 0

    async def identify(self, credentials: Credentials) -> Principal | None:
        self.seen.append(credentials)
        if self.gate is not None:
            try:
                await self.gate
            except BaseException:
                self.left += 1
                raise
        return await super().identify(credentials)


class Limit:
    """Refuses an address immediately."""

    def check(self, client: str) -> None:
        """See `FailedLogins`."""
        raise TooManyFailures("too many wrong credentials", retry_after=7.2)

    def failed(self, client: str, secret: str) -> None:
        """See `FailedLogins`."""


class AccessCase(SynchronousTestCase):
    rules = AccessRules(reads_are_open=False)

    def setUp(self) -> None:
        self.source = Slow()
        self.source.known = {"r": READER, "w": WRITER}
        self.written: list[str] = []
        self.server = self.server_of(Guard([self.source], self.rules))

    def server_of(self, guard: Guard) -> Server:
        def put(request: NcpsRequest, _: re.Match[bytes]) -> None:
            self.written.append(request.principal.name)
            tell(request, 200, "kept")

        verb = Verb(act=put, scope=Scope.WRITE, takes_body=True)
        route = Route(
            pattern=re.compile(b"/thing"), label="/thing", verbs={b"PUT": verb, b"GET": verb}
        )
        bulk = [query(QueryPage(StubBulk(), InlineThreads())), closures(ClosurePages(StubBulk()))]
        return Server(more=[route, *bulk], credentials=CredentialGuard(guard))

    def put(self, **headers: str) -> Response:
        """Send the head of an upload that waits for permission."""
        client = self.server.connect()
        client.ask(
            "/thing", b"PUT", b"HTTP/1.1", content_length="5", expect="100-continue", **headers
        )
        response = client.response()
        client.leave()
        return response


class ClosedTests(AccessCase):
    """Reads need a token."""

    def test_routes_that_stay_open(self) -> None:
        """Probes are for load balancers, which have no tokens; all else is closed."""
        for path in ("/healthz", "/readyz"):
            self.assertEqual(200, self.server.get(path).status)
        for path in ("/", "/nix-cache-info", "/pubkey", f"/{'0' * 32}.narinfo"):
            self.assertEqual(401, self.server.get(path).status)
            self.assertEqual(401, self.server.get(path, b"HEAD").status)
        ticket = self.server.get(f"/cluster/nar/{'0' * 52}.nar")
        self.assertNotIn(b"ncps token", ticket.body)  # tickets decide there

    def test_no_credentials(self) -> None:
        """The answer names both schemes and the command that makes a token."""
        response = self.server.get("/pubkey")
        self.assertEqual(401, response.status)
        self.assertEqual(
            'Bearer realm="ncps", Basic realm="ncps"', response.headers["www-authenticate"]
        )
        self.assertEqual("no-store", response.headers["cache-control"])
        self.assertIn(b"ncps token create --name NAME --scope read", response.body)

    def test_right_and_wrong(self) -> None:
        """By Bearer and by Basic; answers are private; others get 401, 403 or 400."""
        password = base64.b64encode(b"any:r").decode()
        for value in ("Bearer r", "bearer r", f"Basic {password}"):
            response = self.server.get("/pubkey", authorization=value)
            self.assertEqual(200, response.status)
            self.assertEqual("private, max-age=60", response.headers["cache-control"])
        for value, status in (("Bearer x", 401), ("Bearer w", 403), ("Digest a", 400)):
            response = self.server.get("/pubkey", authorization=value)
            self.assertEqual(status, response.status)
            self.assertEqual(status == 401, "www-authenticate" in response.headers)

    def test_nars_are_closed_too(self) -> None:
        """Whole, in part, by HEAD, with a condition, and by names of other servers."""
        for path in (f"/nar/{'0' * 52}.nar", f"/nar/{'0' * 32}.nar", f"/nar/{'0' * 32}-x.nar"):
            for headers in ({}, {"range": "bytes=0-1"}, {"if_none_match": "*"}):
                for method in (b"GET", b"HEAD"):
                    response = self.server.get(path, method, **headers)
                    expected = 404 if path.endswith("x.nar") else 401
                    self.assertEqual(expected, response.status)
        self.assertEqual([], self.server.cache.asked)

    def test_token_for_some_paths(self) -> None:
        """It permits their narinfos, but no NAR by a name without its path."""
        some = Principal(
            name="some", scopes=frozenset({Scope.READ}), paths=re.compile(".*-hello-.*")
        )
        self.source.known["s"] = some
        for number, name in enumerate(("hello-2", "curl-8")):
            text = f"StorePath: /nix/store/{'0' * 32}-{name}\n".encode()
            served = served_narinfo(text=text, outcome=Outcome.HIT, may_repeat=lambda: True)
            self.server.cache.narinfos[str(number) * 32] = served
        for _ in range(2):
            for number, status in ((0, 200), (1, 403)):
                path = f"/{str(number) * 32}.narinfo"
                response = self.server.get(path, authorization="Bearer s")
                self.assertEqual(status, response.status)
                self.assertEqual(200, self.server.get(path, authorization="Bearer r").status)
        for path, method in (
            (f"/nar/{'0' * 32}.nar", b"GET"),
            (f"/api/v1/closure/{'0' * 32}", b"GET"),
            ("/api/v1/query", b"POST"),
        ):
            response = self.server.get(path, method, authorization="Bearer s")
            self.assertEqual(403, response.status, path)

    def test_upload_is_refused_before_its_body(self) -> None:
        """The client gets no 100 Continue, and reads what to do."""
        response = self.put()
        self.assertEqual(401, response.status)
        self.assertIn(b"--scope write", response.body)
        self.assertEqual(403, self.put(authorization="Bearer r").status)
        self.assertEqual([], self.written)
        self.assertEqual(200, self.put(authorization="Bearer w").status)
        self.assertEqual(["writer"], self.written)
        self.assertEqual("writer", self.server.logged[-1].user)

    def test_source_that_must_be_asked(self) -> None:
        """A request waits for the source, which gets the address of the client."""
        self.source.gate = Deferred()
        self.source.asked["new"] = READER
        client = self.server.connect()
        client.ask("/pubkey", authorization="Bearer new")
        self.assertEqual(b"", client.value())
        self.source.gate.callback(None)
        self.assertEqual(200, client.response().status)
        self.assertEqual("192.0.2.1", self.source.seen[0].client)
        client.leave()

    def test_client_that_leaves_while_a_source_is_asked(self) -> None:
        """The question is cancelled, and nothing is logged as an error."""
        self.source.gate = Deferred()
        client = self.server.connect()
        client.ask("/pubkey", authorization="Bearer new")
        client.leave()
        self.assertEqual(1, self.source.left)
        self.assertEqual(0, self.server.sample("http_server_active_requests"))

    def test_source_that_is_unsure(self) -> None:
        """The client may try again, and learns nothing about the database."""
        self.source.asked["x"] = Unavailable("postgresql at 10.0.0.3 is away", retry_after=3.0)
        response = self.server.get("/pubkey", authorization="Bearer x")
        self.assertEqual((503, "3"), (response.status, response.headers["retry-after"]))
        self.assertNotIn(b"10.0.0.3", response.body)

    def test_source_that_fails(self) -> None:
        """An unexpected error is 500, and logged."""

        async def broken(credentials: Credentials) -> Principal | None:
            raise ValueError("broken")

        self.source.identify = broken  # type: ignore[method-assign]
        self.assertEqual(500, self.server.get("/pubkey", authorization="Bearer x").status)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_too_many_failures(self) -> None:
        """The answer says how long the address has to wait."""
        self.server = self.server_of(Guard([self.source], self.rules, logins=Limit()))
        response = self.server.get("/pubkey", authorization="Bearer x")
        self.assertEqual((429, "8"), (response.status, response.headers["retry-after"]))

    def test_several_fields(self) -> None:
        """Two fields are refused: a proxy and ncps might use different ones."""
        client = self.server.connect()
        client.send(
            b"GET /pubkey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer r\r\n"
            b"Authorization: Bearer r\r\n\r\n"
        )
        self.assertEqual(400, client.response().status)
        client.leave()


class OpenTests(AccessCase):
    """Reads are open, and so are uploads before the first token."""

    rules = AccessRules(open_verbs=frozenset({Scope.WRITE}))

    def test_credentials_do_not_matter_where_all_may(self) -> None:
        """An old token, or one of another server, does not matter."""
        for value in ("Bearer x", "nonsense", "Bearer r"):
            response = self.server.get("/pubkey", authorization=value)
            self.assertEqual(200, response.status)
            self.assertEqual("public, max-age=60", response.headers["cache-control"])

    def test_anybody_may_upload_until_there_is_a_token(self) -> None:
        """As in the Go program; the first token ends it."""
        self.source.is_configured = False
        self.assertEqual(200, self.put().status)
        self.source.is_configured = None
        self.assertEqual(503, self.put().status)
        self.source.is_configured = True
        self.assertEqual(401, self.put().status)

    def test_verb_that_is_off(self) -> None:
        """PUT is no method of the path, and the body says what to do."""
        self.source.is_configured = False
        self.server = self.server_of(Guard([self.source]))
        response = self.put()
        self.assertEqual((405, "GET, OPTIONS"), (response.status, response.headers["allow"]))
        self.assertIn(b"ncps token create", response.body)


class SecretTests(AccessCase):
    rules = AccessRules()

    def test_tokens_do_not_belong_in_a_url(self) -> None:
        """They are refused everywhere, and never logged."""
        for given in ("token=hush", "a=b&access_token=hush", "ACCESS_TOKEN=hush", "x;token=hush"):
            response = self.server.get(f"/pubkey?{given}")
            self.assertEqual(400, response.status)
            self.assertIn(b"revoke it", response.body)
            self.assertNotIn(b"hush", response.body)
        self.assertNotIn("hush", repr(self.server.logged))
        for given in ("", "hash=0", "broken=1"):
            self.assertEqual(200, self.server.get(f"/pubkey?{given}").status)
        self.assertFalse(has_secret(b"/token=1"))

    def test_a_token_of_ours_is_found_anywhere(self) -> None:
        """In a path, in a query, before the host; neither spans nor the log show it."""
        token = new_token()
        self.server.site.tracer = tracer = MemoryTracer()
        for target in (
            f"/{token}",
            f"/nar/{token}.nar?x=1",
            f"/pubkey?key={token}",
            f"http://ci:{token}@cache.example/pubkey",
        ):
            response = self.server.get(target)
            self.assertEqual(400, response.status, target)
            self.assertIn(b"revoke it", response.body)
        response = self.server.get("http://ci:hush@cache.example/pubkey")
        self.assertEqual(400, response.status)
        self.assertEqual(200, self.server.get("http://cache.example/pubkey").status)
        shown = repr(self.server.logged) + repr([span.facts for span, _ in tracer.begun])
        self.assertEqual(6, len(self.server.logged))
        for secret in (token, "hush"):
            self.assertNotIn(secret, shown)


class VouchedTests(SynchronousTestCase):
    """A proxy with a certificate of its own, which names its users."""

    def setUp(self) -> None:
        guard = Guard(
            [
                CertificateClients(rules(TLS_RULE, "scope=read,write; cn=proxy-*")),
                ProxyUsers(rules(PROXY_RULE, "scope=read; user=alice")),
            ],
            AccessRules(reads_are_open=False),
        )
        self.users = ProxiedUsers(Clock(), "x-forwarded-user")
        self.guard = guard

    def status(self, *, trusted: str, users: ProxiedUsers | None = None, **headers: str) -> int:
        server = Server(
            ServerSettings(trusted_proxies=(trusted,)),
            credentials=CredentialGuard(self.guard, users or self.users),
        )
        client = server.connect()
        client.client_certificate = ClientCertificate(common_name="proxy-1")
        client.ask("/pubkey", b"GET", b"HTTP/1.1", **headers)
        status = client.response().status
        client.leave()
        return status

    def test_the_certificate_of_a_proxy_is_not_that_of_its_users(self) -> None:
        """Users have only their own scopes."""
        for user, status in (("alice", 200), ("mallory", 403), ("", 401)):
            found = self.status(trusted="192.0.2.1", x_forwarded_user=user)
            self.assertEqual(status, found, user)
        self.assertEqual(401, self.status(trusted="192.0.2.1"))

    def test_other_certificates_count(self) -> None:
        """On connections of clients, and if no proxy names users."""
        self.assertEqual(200, self.status(trusted="192.0.2.9", x_forwarded_user="alice"))
        unnamed = ProxiedUsers(Clock())
        self.assertEqual(200, self.status(trusted="192.0.2.1", users=unnamed))
