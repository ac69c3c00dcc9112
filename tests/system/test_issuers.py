"""Clients with tokens of an issuer or behind a proxy; and clients that guess."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.daemon import Daemon
from tests.fakes.issuer import (
    AUDIENCE,
    discovery,
    encoded,
    keys,
    of_github,
    of_gitlab,
    private_key,
    public_jwk,
    sign,
)
from tests.system.caches import StorePath
from tests.system.faults import Cut, Fault, Html, Redirect, Silence, Status, Trickle
from tests.system.stage import Stage
from tests.system.wire import Answer, ask

REST_S = 0.05
DEADLINE_S = 0.5
CONSTANTS = {
    "ncps.auth.oidc.issuer.REST_S": REST_S,
    "ncps.auth.oidc.issuer.RETRY_S": REST_S,
}
KEYS = "/github/keys"


class IssuerStage(Stage):
    """A daemon with two issuers, which are one server."""

    def setUp(self) -> None:
        super().setUp()
        self.issuer = self.origin()
        self.github, self.gitlab = f"{self.issuer.url}/github", f"{self.issuer.url}/gitlab"
        self.publish("github", "key-1")
        self.publish("gitlab", "lab-1")
        self.path = self.cache.add(size=1000)
        self.number = 0

    def publish(self, name: str, *names: str, faults: tuple[Fault, ...] = ()) -> None:
        url = f"{self.issuer.url}/{name}"
        configuration = f"/{name}/.well-known/openid-configuration"
        self.issuer.serve(configuration, discovery(url), *faults)
        self.issuer.serve(f"/{name}/keys", keys(*(public_jwk("RS256", key) for key in names)))

    def over(self, *options: str, **constants: float) -> Daemon:
        """Return a running daemon with closed reads."""
        daemon = self.make_daemon(
            self.mounted(),
            options=(
                *("--auth-reads", "token", "--auth-max-failed-logins", "0"),
                *("--auth-oidc-issuer", self.github, "--auth-oidc-issuer", self.gitlab),
                *("--auth-oidc-audience", AUDIENCE),
                *("--auth-oidc-rule", f"scope=read; iss={self.github}; repository=octo-org/*"),
                *("--auth-oidc-rule", f"scope=read; iss={self.gitlab}; project_path=group/*"),
                *options,
            ),
        )
        daemon.constants.update({**CONSTANTS, **constants})
        daemon.start()
        return daemon

    def claims(self, **changes: object) -> dict[str, object]:
        """Return claims of a job, each time different."""
        self.number += 1
        usual: dict[str, object] = {"iss": self.github, "jti": str(self.number)}
        return of_github(time.time(), **{**usual, **changes})

    def token(self, name: str = "key-1", **changes: object) -> str:
        return sign(self.claims(**changes), name=name)

    def wrong_tokens(self) -> dict[str, str]:
        now = time.time()
        public = private_key("RS256", "key-1").public_key()
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = f"{encoded({'alg': 'HS256', 'kid': 'key-1'})}.{encoded(self.claims())}"
        tag = hmac.digest(secret, signed.encode(), hashlib.sha256)
        right = self.token()
        return {
            "alg=none": f"{encoded({'alg': 'none', 'kid': 'key-1'})}.{encoded(self.claims())}.AA",
            "the public key as a secret": f"{signed}.{encoded(tag)}",
            "key of the other issuer": sign(self.claims(), name="lab-1", head={"kid": "key-1"}),
            "a stranger": self.token(iss="https://evil.example"),
            "expired": self.token(exp=now - 60),
            "not yet valid": self.token(nbf=now + 600),
            "another audience": self.token(aud="sts.amazonaws.com"),
            "cut": right[:-5],
            "changed": f"{right[:-6]}AAAAAA",
            "nested": f"{encoded({'alg': 'RS256'})}.{encoded('[' * 3000)}.AA",
            "twice": f"{encoded({'alg': 'RS256'})}.{encoded(chr(123) + _TWICE)}.AA",
        }

    def read(self, daemon: Daemon, token: str, path: StorePath | None = None) -> Answer:
        target = f"/{(path or self.path).digest}.narinfo"
        return self.ask(daemon, target, Authorization=f"Bearer {token}")

    def check_log(self, daemon: Daemon) -> None:
        super().check_log(daemon)
        self.assertNotIn("eyJ", daemon.log)


class IssuerTests(IssuerStage):
    def test_jobs_of_ci(self) -> None:
        """A job with a matching rule may read, by Bearer and by password; others may not."""
        daemon = self.over()
        target = f"/{self.path.digest}.narinfo"
        self.assertEqual(401, self.ask(daemon, target).status)
        text = self.token()
        for _ in range(3):  # the first one from upstream, the others from memory
            self.assertEqual(200, self.read(daemon, text).status)
        basic = base64.b64encode(f"ci:{text}".encode()).decode()
        self.assertEqual(200, self.ask(daemon, target, Authorization=f"Basic {basic}").status)
        self.assertEqual(401, self.ask(daemon, target).status)
        lab = sign(of_gitlab(time.time(), iss=self.gitlab), name="lab-1")
        self.assertEqual(200, self.read(daemon, lab).status)
        self.assertEqual(403, self.read(daemon, self.token(repository="evil/repo")).status)
        for name, wrong in self.wrong_tokens().items():
            answer = self.read(daemon, wrong)
            self.assertEqual(401, answer.status, name)
            self.assertIn("www-authenticate", answer.headers)
        self.assertEqual(2, self.issuer.gets(KEYS) + self.issuer.gets("/gitlab/keys"))
        self.assertGreater(
            self.metric(daemon, 'ncps_authentications_total{result="invalid",source="oidc"}'), 5
        )

    def test_keys_that_change(self) -> None:
        """A new key counts immediately; while the issuer is away, known keys count."""
        daemon = self.over()
        self.assertEqual(200, self.read(daemon, self.token()).status)
        self.publish("github", "key-2")
        self.assertEqual(200, self.eventually(daemon, "key-2").status)
        self.assertEqual(401, self.eventually(daemon, "key-1", 401).status)
        self.issuer.stop()
        self.assertEqual(200, self.read(daemon, self.token("key-2")).status)
        answer = self.eventually(daemon, "key-3", 503)
        self.assertEqual(503, answer.status)
        self.assertIn("retry-after", answer.headers)
        self.assertIn(f"issuer {self.github}", self.warnings(daemon))
        self.issuer.start()
        self.publish("github", "key-3")
        self.assertEqual(200, self.eventually(daemon, "key-3").status)
        self.assertNotIn("issuer", self.warnings(daemon))

    def eventually(self, daemon: Daemon, name: str, status: int = 200) -> Answer:
        """Repeat a request until the answer is right, as a client does after 503."""
        until = time.monotonic() + 10
        while True:
            answer = self.read(daemon, self.token(name))
            if answer.status == status or time.monotonic() > until:
                return answer
            self.assertEqual(503, answer.status)

    def warnings(self, daemon: Daemon) -> str:
        found: Any = self.ask(daemon, "/readyz").json
        return json.dumps(found.get("warnings", []))

    def test_an_issuer_that_misbehaves(self) -> None:
        """For each fault of the issuer, ncps soon answers 503."""
        daemon = self.over(**{"ncps.upstream.documents.DEADLINE_S": DEADLINE_S})
        huge = b'{"keys": [' + b"0," * 200_000
        for faults in (
            (Silence(),),
            (Trickle(rate=10),),
            (Status(500),),
            (Html(),),
            (Redirect(f"{self.issuer.url}/gitlab/keys"),),
            (Cut(5),),
        ):
            self.publish("github", "key-1", faults=faults)
            began = time.monotonic()
            answer = self.read(daemon, self.token())
            self.assertEqual(503, answer.status, str(faults))
            self.assertLess(time.monotonic() - began, 5.0)
        self.publish("github", "key-1")
        for document in (huge, keys(*[public_jwk("RS256", "key-1")] * 150), b"{}"):
            self.issuer.serve(KEYS, document)
            self.assertEqual(503, self.read(daemon, self.token()).status)
        self.publish("github", "key-1")
        self.assertEqual(200, self.eventually(daemon, "key-1").status)


_TWICE = '"iss": "a", "iss": "b"}'


class ProxyTests(IssuerStage):
    def test_users_that_a_proxy_names(self) -> None:
        """ncps trusts the header of the trusted proxy, and ignores it from others."""
        daemon = self.over(
            *("--server-trusted-proxies", "127.0.0.9", "--auth-proxy-header", "X-Forwarded-User"),
            *("--auth-proxy-rule", "scope=read; user=alice,ci-*"),
        )

        def status(source: str, **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            target = f"/{self.path.digest}.narinfo"
            return ask(daemon.port, target, headers=sent, source=source).status

        for _ in range(2):
            self.assertEqual(200, status("127.0.0.9", X_Forwarded_User="alice"))
        self.assertEqual(200, status("127.0.0.9", X_Forwarded_User="ci-7"))
        self.assertEqual(403, status("127.0.0.9", X_Forwarded_User="mallory"))
        self.assertEqual(400, status("127.0.0.9", X_Forwarded_User="mallory, alice"))
        self.assertEqual(401, status("127.0.0.9"))
        self.assertEqual(401, status("127.0.0.1", X_Forwarded_User="alice"))
        self.wait_for_log(daemon, "127.0.0.1 names the user", "not one of server-trusted-proxies")
        bearer = f"Bearer {self.token(exp=1)}"
        self.assertEqual(401, status("127.0.0.9", X_Forwarded_User="alice", Authorization=bearer))


class GuessTests(IssuerStage):
    def test_an_address_that_guesses_has_to_wait(self) -> None:
        """Other addresses and known clients need not wait; the log has two lines."""
        daemon = self.over("--auth-max-failed-logins", "3")
        right = self.token()
        self.assertEqual(200, self.read(daemon, right).status)
        for _ in range(3):
            self.assertEqual(401, self.read(daemon, self.token(exp=1)).status)
        for guess in (self.token(exp=1), "a guess", self.token()):
            answer = self.read(daemon, guess)
            self.assertEqual(429, answer.status)
            self.assertGreater(int(answer.headers["retry-after"]), 1)
        self.assertEqual(200, self.read(daemon, right).status)
        sent = {"Authorization": f"Bearer {self.token()}"}
        target = f"/{self.path.digest}.narinfo"
        other = ask(daemon.port, target, headers=sent, source="127.0.0.5")
        self.assertEqual(200, other.status)
        self.assertEqual(
            3, self.metric(daemon, 'ncps_limit_reached_total{limit="auth-max-failed-logins"}')
        )
        self.assertEqual(2, daemon.log.count("wrong credentials from"))
