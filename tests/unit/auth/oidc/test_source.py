"""Clients with tokens of an issuer: valid and invalid ones."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.auth.credentials import Credentials, WrongCredentials
from ncps.auth.oidc.issuer import Issuer
from ncps.auth.oidc.source import FORGED_S, LEEWAY_S, MAX_FORGED, REMEMBERED_S, OidcTokens
from ncps.auth.principal import Principal, Scope
from ncps.auth.rules import ScopeRules
from ncps.errors import Busy, Unavailable
from ncps.observe.metrics import Metrics
from tests.fakes.clocks import SetClock
from tests.fakes.documents import FakeDocuments
from tests.fakes.issuer import (
    AUDIENCE,
    GITHUB,
    GITLAB,
    discovery,
    encoded,
    keys,
    of_github,
    of_gitlab,
    private_key,
    public_jwk,
    sign,
    sign_text,
)
from tests.unit.auth.test_rules import rule

RULES = f"""\
scope=read,write; iss={GITHUB}; repository=octo-org/octo-repo; ref=refs/heads/main
scope=read; iss={GITHUB}; repository_owner=octo-org
scope=read,write,pin; iss={GITLAB}; project_path=group/*; ref_protected=true"""


class OidcCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SetClock()
        self.documents = FakeDocuments()
        self.tasks = Tasks(self.clock)
        for url, name in ((GITHUB, "key-1"), (GITLAB, "lab-1")):
            self.documents.pages[f"{url}/.well-known/openid-configuration"] = discovery(url)
            self.documents.pages[f"{url}/keys"] = keys(public_jwk("RS256", name))
        issuers = [
            Issuer(url, self.documents, self.clock, self.tasks, Metrics())
            for url in (GITHUB, GITLAB)
        ]
        rules = ScopeRules([rule(line) for line in RULES.splitlines()])
        self.source = OidcTokens(issuers, [AUDIENCE, "ncps"], rules, self.clock)

    @property
    def now(self) -> float:
        return self.clock.wall()

    def ask(self, secret: str, *, as_password: bool = False) -> Deferred[Principal | None]:
        sent = Credentials(user="x", password=secret) if as_password else Credentials(bearer=secret)
        return Deferred.fromCoroutine(self.source.identify(sent))

    def scopes(self, secret: str) -> set[str]:
        found = self.successResultOf(self.ask(secret))
        assert found is not None
        return {scope.value for scope in found.scopes}

    def wrong(self, secret: str) -> WrongCredentials:
        error: WrongCredentials = self.failureResultOf(self.ask(secret), WrongCredentials).value
        self.assertIsNone(self.source.recall(Credentials(bearer=secret)))
        self.assertNotIn(secret[:30], str(error))
        return error

    def github(self, **changes: object) -> str:
        return sign(of_github(self.now, **changes))


class RightTests(OidcCase):
    def test_a_job_of_github(self) -> None:
        """The branch of its repository decides."""
        self.assertEqual({"read", "write"}, self.scopes(self.github()))
        self.assertEqual({"read"}, self.scopes(self.github(ref="refs/pull/1/merge")))
        found = self.successResultOf(self.ask(self.github()))
        assert found is not None
        self.assertEqual(
            "token.actions.githubusercontent.com repo:octo-org/octo-repo:ref:refs/heads/main",
            found.name,
        )

    def test_a_job_of_gitlab(self) -> None:
        """Its audience is a list, and its project is in a nested group."""
        text = sign(of_gitlab(self.now), name="lab-1")
        self.assertEqual({"read", "write", "pin"}, self.scopes(text))
        text = sign(of_gitlab(self.now, ref_protected="false"), name="lab-1")
        self.assertEqual(set(), self.scopes(text))

    def test_a_token_that_no_rule_knows_has_no_scope(self) -> None:
        """It is valid nevertheless: the client learns that it may not, not that it is unknown."""
        self.assertEqual(set(), self.scopes(self.github(repository_owner="evil", repository="e/e")))

    def test_nix_sends_it_as_a_password(self) -> None:
        """From its netrc file."""
        found = self.successResultOf(self.ask(self.github(), as_password=True))
        assert found is not None
        self.assertTrue(found.may(Scope.WRITE))

    def test_a_right_token_is_known_by_heart(self) -> None:
        """As Bearer and as password, while it is valid; without a check of the signature."""
        text = self.github()
        credentials = Credentials(bearer=text)
        self.assertIsNone(self.source.recall(credentials))
        self.scopes(text)
        found = self.source.recall(credentials)
        assert found is not None
        self.assertTrue(found.may(Scope.WRITE))
        self.assertIsNotNone(self.source.recall(Credentials(user="x", password=text)))
        self.assertIsNone(self.source.recall(Credentials(bearer=text[:-2])))
        self.clock.ahead += 300 + LEEWAY_S
        self.assertIsNone(self.source.recall(credentials))
        self.assertEqual("expired", self.wrong(text).kind)

    def test_by_heart_for_an_hour_at_most(self) -> None:
        """A withdrawn key counts no longer than that."""
        text = self.github(exp=self.now + 10 * REMEMBERED_S)
        self.scopes(text)
        self.clock.advance(REMEMBERED_S)
        self.assertIsNone(self.source.recall(Credentials(bearer=text)))

    def test_other_credentials_are_for_other_sources(self) -> None:
        """Neither wrong nor right here."""
        for secret in ("", "ncps_0123456789", "a.b.c", "password"):
            self.assertIsNone(self.successResultOf(self.ask(secret)))
            self.assertIsNone(self.source.recall(Credentials(bearer=secret)))
        self.assertEqual([], self.documents.fetched)


class WrongTests(OidcCase):
    def test_times(self) -> None:
        """Expired, not valid yet, without an expiry; clocks may differ by a few seconds."""
        now = self.now
        for kind, claims in (
            ("expired", {"exp": now - LEEWAY_S}),
            ("expired", {"nbf": now + LEEWAY_S + 1}),
            ("expired", {"iat": now + LEEWAY_S + 1}),
            ("invalid", {"exp": None}),
            ("invalid", {"exp": str(now + 300)}),
            ("invalid", {"exp": True}),
            ("invalid", {"nbf": "soon"}),
        ):
            self.assertEqual(kind, self.wrong(self.github(**claims)).kind, str(claims))
        for right in ({"exp": now - LEEWAY_S + 1}, {"nbf": now + LEEWAY_S}, {"nbf": None}):
            self.assertEqual({"read", "write"}, self.scopes(self.github(**right)))

    def test_tokens_for_others(self) -> None:
        """Of the same issuer, for another service: a job may have sent it there."""
        for audience in ("sts.amazonaws.com", [], None, ["x"], {"ncps": 1}, f"{AUDIENCE}/"):
            found = self.wrong(self.github(aud=audience))
            self.assertIn(AUDIENCE, str(found))
        self.assertEqual({"read", "write"}, self.scopes(self.github(aud=["x", "ncps"])))

    def test_issuers_that_are_not_trusted(self) -> None:
        """Their keys are not fetched."""
        for issuer in ("https://evil.example", f"{GITHUB}/", "", None, [GITHUB], GITHUB.upper()):
            self.assertIn("not trusted", str(self.wrong(self.github(iss=issuer))))
        self.assertEqual([], self.documents.fetched)

    def test_keys_of_another_issuer(self) -> None:
        """An issuer vouches for its own tokens only."""
        text = sign(of_github(self.now), name="lab-1")
        self.assertIn("no such key", str(self.wrong(text)))
        text = sign(of_github(self.now), name="lab-1", head={"kid": "key-1"})
        self.assertIn("signature", str(self.wrong(text)))

    def test_no_algorithm_at_all(self) -> None:
        """alg=none, in any spelling, with and without a signature."""
        claims = encoded(of_github(self.now))
        for name in ("none", "None", "NONE", "nOnE", ""):
            head = encoded({"alg": name, "kid": "key-1"})
            self.assertIn("algorithm", str(self.wrong(f"{head}.{claims}.AA")))
            self.wrong(f"{head}.{claims}.")
        self.assertEqual([], self.documents.fetched)

    def test_a_public_key_is_no_secret(self) -> None:
        """HS256 with the public key as its secret, in each form that a library might accept."""
        public = private_key("RS256", "key-1").public_key()
        described = public_jwk("RS256", "key-1")
        signed = f"{encoded({'alg': 'HS256', 'kid': 'key-1'})}.{encoded(of_github(self.now))}"
        for secret in (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            described["n"].encode(),
            base64.urlsafe_b64decode(described["n"] + "=="),
        ):
            tag = encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))
            self.assertIn("HS256", str(self.wrong(f"{signed}.{tag}")))

    def test_keys_that_the_token_brings_along(self) -> None:
        """The maker of a token can include a key; ncps neither uses nor fetches it."""
        own = public_jwk("RS256", "own")
        for head in (
            {"jwk": own, "kid": "own"},
            {"jku": "https://evil.example/keys", "kid": "own"},
            {"x5u": "https://evil.example/cert", "kid": "own"},
            {"jwk": own, "kid": "key-1"},
        ):
            self.clock.advance(60)
            self.wrong(sign(of_github(self.now), name="own", head=head))
        self.assertEqual(set(), {url for url in self.documents.fetched if "evil" in url})

    def test_changed_tokens(self) -> None:
        """Each byte of the signed text counts, and each byte of the signature."""
        head, claims, signature = self.github(ref="refs/heads/x").split(".")
        for text in (
            f"{head}.{encoded(of_github(self.now))}.{signature}",
            f"{head}.{claims}.{signature[::-1]}",
            f"{head}.{claims}.AA",
            f"{encoded({'alg': 'RS512', 'kid': 'key-1'})}.{claims}.{signature}",
            f"{encoded({'alg': 'ES256', 'kid': 'key-1'})}.{claims}.{signature}",
            f"{encoded({'alg': 'PS256', 'kid': 'key-1'})}.{claims}.{signature}",
        ):
            self.clock.advance(60)
            self.wrong(text)

    def test_what_was_signed_with_two_meanings(self) -> None:
        """Even its issuer cannot say two things in one token."""
        head = {"alg": "RS256", "kid": "key-1"}
        claims = of_github(self.now)
        texts = "".join(f'"{name}": "{claims[name]}", ' for name in ("iss", "aud", "sub"))
        end = f'"exp": {self.now + 300}'
        self.assertEqual(set(), self.scopes(sign_text(head, f"{{{texts}{end}}}")))
        twice = f'{{{texts}"repository": "a/b", "repository": "octo-org/octo-repo", {end}}}'
        self.assertIn("twice", str(self.wrong(sign_text(head, twice))))

    def test_large_ones(self) -> None:
        """A token of 1 MB, and one that is nested 5000 deep."""
        self.assertIn("more than", str(self.wrong(self.github(x="y" * (1 << 20)))))
        deep = '{"a": ' + "[" * 5000 + "]" * 5000 + "}"
        self.wrong(sign_text({"alg": "RS256", "kid": "key-1"}, deep))

    def test_messages_show_little_of_a_token(self) -> None:
        """The shown part is short, and has only printable characters."""
        found = str(self.wrong(self.github(iss="https://evil.example/\n" + "x" * 5000)))
        self.assertLess(len(found), 200)
        self.assertTrue(found.isprintable())


class UnsureTests(OidcCase):
    def test_an_issuer_that_is_away(self) -> None:
        """It is unknown whether the token is right; known ones continue."""
        text = self.github()
        self.scopes(text)
        page = f"{GITLAB}/.well-known/openid-configuration"
        self.documents.pages[page] = Unavailable("nobody answers")
        other = sign(of_gitlab(self.now), name="lab-1")
        self.failureResultOf(self.ask(other), Unavailable)
        self.assertEqual({"read", "write"}, self.scopes(text))
        self.assertEqual(1, len(self.source.warnings()))

    def test_forged_tokens_do_not_take_the_processor(self) -> None:
        """After too many in a second no signature is checked, and known clients continue."""
        text = self.github()
        self.scopes(text)
        forged = sign(of_github(self.now), name="other", head={"kid": "key-1"})
        for _ in range(MAX_FORGED):
            self.wrong(forged)
        self.failureResultOf(self.ask(forged), Busy)
        self.failureResultOf(self.ask(self.github(run="new")), Busy)
        self.assertIsNotNone(self.source.recall(Credentials(bearer=text)))
        self.clock.advance(FORGED_S)
        self.wrong(forged)
        self.assertEqual({"read", "write"}, self.scopes(self.github(run="new")))
