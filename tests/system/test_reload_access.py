"""SIGHUP changes the rights of clients: tokens in files, issuers, proxies, closed reads."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.daemon import Daemon
from tests.fakes.issuer import AUDIENCE, discovery, keys, of_github, public_jwk, sign
from tests.system.test_reload import ReloadStage
from tests.system.wire import Answer, ask

PROXY = "127.0.0.9"


class AccessStage(ReloadStage):
    """A daemon whose file has the rights of clients."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.cache.add(1000)
        self.upstream = self.mounted()
        self.secret = self.directory / "get-token"
        self.numbers = iter(range(100))

    def say(self, auth: object = None, server: object = None, **cache: object) -> None:
        """Write the file with these branches."""
        more: dict[str, Any] = {"auth": auth} if auth else {}
        more |= {"server": server} if server else {}
        self.write(self.upstream, self.cache.key, cache=cache, **more)

    def read(self, daemon: Daemon, token: str = "", target: str = "", **sent: str) -> Answer:
        """Ask for the narinfo, as a proxy if headers are given."""
        target = target or f"/{self.path.digest}.narinfo"
        headers = {name.replace("_", "-"): value for name, value in sent.items()}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        return ask(daemon.port, target, headers=headers, source=PROXY if sent else "127.0.0.1")

    def check_log(self, daemon: Daemon) -> None:
        super().check_log(daemon)
        for secret in ("first-secret", "second-secret", "eyJ"):
            self.assertNotIn(secret, daemon.log)


class StaticTests(AccessStage):
    def test_reads_are_closed_and_opened(self) -> None:
        """The token of a file closes reads and changes; answers in memory are closed, too."""
        self.say()
        daemon = self.configured()
        for _ in range(3):
            answer = self.read(daemon)
            self.assertEqual(
                (200, "public, max-age=60"), (answer.status, answer.headers["cache-control"])
            )
        self.secret.write_text("first-secret")
        closed: dict[str, Any] = {"get-token-file": str(self.secret)}
        self.say({"metrics": "token"}, **closed)
        self.reload(daemon, "reloaded: cache.get-token")
        self.assertEqual(401, self.read(daemon).status)
        self.assertEqual(401, self.read(daemon, target="/metrics").status)
        for _ in range(3):
            answer = self.read(daemon, "first-secret")
            self.assertEqual(200, answer.status)
            self.assertTrue(
                answer.headers["cache-control"].startswith("private"),
                answer.headers["cache-control"],
            )
        self.secret.write_text("second-secret")
        self.reload(daemon, "of which only")
        self.assertEqual(401, self.read(daemon, "first-secret").status)
        self.assertEqual(200, self.read(daemon, "second-secret").status)
        self.assertEqual(200, self.read(daemon, "second-secret", target="/metrics").status)
        self.secret.unlink()
        self.assertIn("get-token-file", self.reload(daemon, "nothing is reloaded")[-1])
        self.assertEqual(401, self.read(daemon).status)
        self.assertEqual(200, self.read(daemon, "second-secret").status)
        self.say()
        self.reload(daemon, "reloaded: cache.get-token")
        self.assertEqual(200, self.read(daemon, target="/metrics").status)
        for _ in range(3):
            self.assertEqual("public, max-age=60", self.read(daemon).headers["cache-control"])

    def test_verbs_that_are_opened(self) -> None:
        """The log warns of the rights of all clients."""
        self.say()
        daemon = self.configured()
        target = f"/upload/{self.path.digest}.narinfo"
        self.assertEqual(405, self.ask(daemon, target, method="PUT").status)
        self.say(**{"allow-put-verb": True})
        self.reload(daemon, "anybody who reaches the port may upload")
        self.assertNotIn(self.ask(daemon, target, method="PUT").status, (401, 403, 405))
        self.say()
        self.reload(daemon, "reloaded: cache.allow-put-verb: false")
        self.assertEqual(405, self.ask(daemon, target, method="PUT").status)


class VouchedTests(AccessStage):
    def setUp(self) -> None:
        super().setUp()
        self.issuer = self.origin()
        for name in ("github", "other"):
            url = f"{self.issuer.url}/{name}"
            self.issuer.serve(f"/{name}/.well-known/openid-configuration", discovery(url))
            self.issuer.serve(f"/{name}/keys", keys(public_jwk("RS256", f"{name}-1")))

    def oidc(self, name: str, rule: str) -> dict[str, Any]:
        """Return the branch about one issuer."""
        return {
            "issuers": [f"{self.issuer.url}/{name}"],
            "audiences": [AUDIENCE],
            "rules": [f"scope=read; {rule}"],
        }

    def token(self, name: str) -> str:
        """Return a token of an issuer, each time different."""
        number = str(next(self.numbers))
        claims = of_github(time.time(), iss=f"{self.issuer.url}/{name}", jti=number)
        return sign(claims, name=f"{name}-1")

    def test_issuers_and_rules(self) -> None:
        """Rules count immediately, also for tokens that were accepted before.

        An issuer that stays keeps its keys; tokens of a removed issuer are refused.
        """
        self.say({"reads": "token", "oidc": self.oidc("github", "repository=octo-org/*")})
        daemon = self.configured()
        token = self.token("github")
        self.assertEqual(200, self.read(daemon, token).status)
        self.say({"reads": "token", "oidc": self.oidc("github", "repository=other/*")})
        self.reload(daemon, "reloaded: auth.oidc.rules")
        refused = self.read(daemon, token)
        self.assertEqual(403, refused.status)
        self.assertIn(b"auth-oidc-rule", refused.body)
        self.assertNotIn(b"ncps token create", refused.body)
        self.assertEqual(1, self.issuer.gets("/github/keys"))
        self.say({"reads": "token", "oidc": self.oidc("other", "repository=octo-org/*")})
        self.reload(daemon, "reloaded: auth.oidc.issuers")
        self.assertEqual(401, self.read(daemon, token).status)
        self.assertEqual(200, self.read(daemon, self.token("other")).status)
        nobody = self.read(daemon)
        self.assertEqual(401, nobody.status)
        self.assertIn(b"auth-oidc-issuer", nobody.body)
        self.assertNotIn(b"ncps token create", nobody.body)

    def test_a_wrong_rule_changes_nothing(self) -> None:
        """The line names the fault of the rule."""
        self.say({"reads": "token", "oidc": self.oidc("github", "repository=octo-org/*")})
        daemon = self.configured()
        self.say({"reads": "open", "oidc": self.oidc("github", "aud=x")})
        self.assertIn("auth-oidc-rule", self.reload(daemon, "nothing is reloaded")[-1])
        self.assertEqual(401, self.read(daemon).status)
        self.assertEqual(200, self.read(daemon, self.token("github")).status)

    def test_users_of_a_proxy(self) -> None:
        """Header, rules and trusted proxies change together."""
        self.say({"reads": "token"})
        daemon = self.configured()
        self.assertEqual(401, self.read(daemon, X_User="alice").status)
        rules = {"header": "X-User", "rules": ["scope=read; user=alice"]}
        self.say({"reads": "token", "proxy": rules}, {"trusted-proxies": [PROXY]})
        self.reload(daemon, "reloaded: auth.proxy.rules")
        self.assertEqual(200, self.read(daemon, X_User="alice").status)
        self.assertEqual(403, self.read(daemon, X_User="bob").status)
        rules["header"] = "X-Other-User"
        self.say({"reads": "token", "proxy": rules}, {"trusted-proxies": [PROXY]})
        self.reload(daemon, "reloaded: auth.proxy.header")
        self.assertEqual(401, self.read(daemon, X_User="alice").status)
        self.assertEqual(200, self.read(daemon, X_Other_User="alice").status)


class CrewAccessTests(AccessStage):
    def test_all_workers_close(self) -> None:
        """All workers close their reads."""
        self.say()
        daemon = self.configured(options=["--workers", "2"])
        self.wait_until_all_serve(daemon)
        self.assertEqual({200}, {self.read(daemon).status for _ in range(12)})
        self.secret.write_text("first-secret")
        self.say(**{"get-token-file": str(self.secret)})
        self.reload(daemon, "reloaded: cache.get-token")
        self.assertEqual({401}, {self.read(daemon).status for _ in range(12)})
        self.assertEqual({200}, {self.read(daemon, "first-secret").status for _ in range(12)})
