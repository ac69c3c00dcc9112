"""Uploads with wrong credentials: refused before the body, and no file has the credentials."""

from __future__ import annotations

import base64
from pathlib import Path

from ncps.auth.tokens import new_token
from tests.e2e.daemon import Daemon
from tests.fakes.issuer import AUDIENCE
from tests.system.program import run_ncps
from tests.system.test_issuers import IssuerStage
from tests.system.uploader import UploadStage, head
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until


class UploadCredentialsTests(IssuerStage, UploadStage):
    def writers(self) -> Daemon:
        """Return a daemon with an issuer and with tokens for uploads."""
        daemon = self.make_daemon(
            "http://127.0.0.1:9",
            options=(
                *("--auth-max-failed-logins", "0", "--auth-oidc-audience", AUDIENCE),
                *("--auth-oidc-issuer", self.github, "--auth-oidc-issuer", self.gitlab),
                *("--auth-oidc-rule", f"scope=write; iss={self.github}; repository=octo-org/*"),
            ),
        )
        daemon.start()
        return daemon

    def run_words(self, daemon: Daemon, *words: str) -> str:
        done = run_ncps(daemon, "token", *words)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.strip()

    def create(self, daemon: Daemon, name: str, scope: str, *words: str) -> str:
        return self.run_words(daemon, "create", "--name", name, "--scope", scope, *words)

    def send(self, daemon: Daemon, path: str, body: bytes, *fields: str) -> tuple[int, str]:
        """Send an upload as Nix does, which waits before it sends the body: it never sends it."""
        line = self.connect(daemon)
        expecting = (f"Content-Length: {len(body)}", "Expect: 100-continue")
        line.sendall(head(path, *expecting, *fields))
        return self.answer(line)

    def test_each_is_refused(self) -> None:
        """Expired, revoked, invented, only for reads, of others, forged, in the URL, or missing."""
        daemon, one = self.writers(), upload("secret", "none", 10_000)
        right = self.create(daemon, "right", "write")
        revoked = self.create(daemon, "revoked", "write")
        self.run_words(daemon, "revoke", "revoked")
        expired = self.create(daemon, "expired", "write", "--expires", "1s")
        targets = {
            f"/upload/{one.url}": one.file,
            f"/upload/{one.digest}.narinfo": one.narinfo.render(),
        }

        def are_refused() -> bool:
            sent = [f"Authorization: Bearer {token}" for token in (revoked, expired)]
            return all(self.put(daemon, next(iter(targets)), b"x", each)[0] == 401 for each in sent)

        wait_until(are_refused, "refusals", daemon=daemon)
        make, sign_in = "ncps token create", "auth-oidc-issuer"
        cases = {
            "revoked": (revoked, 401, "revoked"),
            "expired": (expired, 401, "expired"),
            "unknown": (new_token(), 401, make),
            "for reads": (self.create(daemon, "reader", "read"), 403, "write"),
            "of another job": (self.token(repository="evil/repo"), 403, "auth-oidc-rule"),
            **{name: (text, 401, sign_in) for name, text in self.wrong_tokens().items()},
        }
        secrets = [right, self.token()]
        for path, body in targets.items():
            for name, (token, status, words) in cases.items():
                basic = base64.b64encode(f"ci:{token}".encode()).decode()
                secrets += [token, basic]
                for value in (f"Bearer {token}", f"Basic {basic}"):
                    answer = self.send(daemon, path, body, f"Authorization: {value}")
                    self.assertEqual(status, answer[0], f"{name}: {answer}")
                    self.assertIn(words, answer[1], f"{name}: {answer}")
            own, job = secrets[:2]
            for query in (f"token={own}", f"token={job}", f"access_token={job}", f"x={own}"):
                self.refuse(400, "URL", self.send(daemon, f"{path}?{query}", body))
            self.refuse(401, make, self.send(daemon, f"{path}?x={job}", body))
            self.refuse(401, make, self.send(daemon, path, body))
        self.assert_nothing_is_left(daemon)
        self.check_absent(daemon, secrets)
        for path, body in targets.items():
            bearer = f"Authorization: Bearer {right}"
            self.assertEqual(201, self.put(daemon, path, body, bearer)[0])
        self.check_absent(daemon, secrets)

    def check_absent(self, daemon: Daemon, secrets: list[str]) -> None:
        """Check that none is in the log, in the metrics, or in a file."""
        texts = {"log": daemon.log, "metrics": self.ask(daemon, "/metrics").body.decode()}
        for file in Path(daemon.directory).rglob("*"):
            if file.is_file():
                texts[str(file)] = file.read_bytes().decode("latin-1")
        for place, text in texts.items():
            self.assertEqual([], [secret for secret in secrets if secret in text], place)
