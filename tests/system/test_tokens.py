"""Tokens of clients, made by `ncps token` beside running daemons."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.system.program import Done, run_ncps
from tests.system.stage import Stage, requests
from tests.system.wire import Answer
from tests.waiting import wait_until

TOKEN = re.compile(r"ncps_[A-Za-z0-9_-]{43}")
STATIC = "a token of the settings"


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"nix:{token}".encode()).decode()


class TokenStage(Stage):
    """Runs `ncps token` with the settings of a daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.made: list[str] = []

    def token(self, daemon: Daemon, *words: str) -> Done:
        return run_ncps(daemon, "token", *words)

    def create(self, daemon: Daemon, name: str, *words: str) -> str:
        done = self.token(daemon, "create", "--name", name, *words)
        self.assertEqual(0, done.returncode, done.stderr)
        found = done.stdout.strip()
        self.assertRegex(found, TOKEN)
        self.assertNotIn(found, done.stderr)
        self.made.append(found)
        return found

    def get(self, daemon: Daemon, path: str, value: str = "", method: str = "GET") -> Answer:
        given = {"authorization": value} if value else {}
        return self.ask(daemon, path, method=method, **given)

    def wait_for_status(self, daemon: Daemon, path: str, value: str, status: int) -> None:
        """Wait until every worker answers so: ten answers in a row, each on its own connection."""

        def is_so() -> bool:
            return all(self.get(daemon, path, value).status == status for _ in range(10))

        wait_until(is_so, f"{path} to be {status}", daemon=daemon)

    def check_secrets(self, daemon: Daemon) -> None:
        """No token is in the log, in the metrics, or in a file."""
        texts = [daemon.log, self.get(daemon, "/metrics").body.decode()]
        texts += [
            file.read_bytes().decode("latin-1")
            for file in Path(daemon.directory).rglob("*")
            if file.is_file()
        ]
        for text in texts:
            for token in self.made:
                self.assertNotIn(token, text)


class ClosedReadsTests(TokenStage):
    def test_the_life_of_tokens(self) -> None:
        """Tokens are made, used, listed, expired and revoked, with two workers on one file."""
        options = ("--auth-reads", "token", "--workers", "2")
        path = self.cache.add()
        daemon = self.daemon(self.mounted(), options=options)
        narinfo = f"/{path.digest}.narinfo"
        refused = self.get(daemon, narinfo)
        self.assertEqual(401, refused.status)
        self.assertIn(b"ncps token create", refused.body)
        self.assertEqual(
            'Bearer realm="ncps", Basic realm="ncps"', refused.headers["www-authenticate"]
        )
        for probe in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(200, self.get(daemon, probe).status)

        reader = self.create(daemon, "reader")
        for value in (f"Bearer {reader}", basic(reader)):
            for _ in range(4):  # in the usual way, and then ready answers
                answer = self.get(daemon, narinfo, value)
                self.assertEqual(200, answer.status, answer.body)
                self.assertEqual("private, max-age=60", answer.headers["cache-control"])
        nar = "/" + answer.fields["URL"]
        self.assertEqual(401, self.get(daemon, nar).status)
        answer = self.get(daemon, nar, basic(reader))
        self.assertEqual(200, answer.status)
        self.assertEqual("private, max-age=31536000, immutable", answer.headers["cache-control"])

        writer = self.create(daemon, "writer", "--scope", "write")
        self.assertEqual(403, self.get(daemon, narinfo, basic(writer)).status)
        some = self.create(daemon, "some", "--path", ".*-nothing")
        self.assertEqual(403, self.get(daemon, narinfo, basic(some)).status)
        short = self.create(daemon, "short", "--expires", "1s")
        self.wait_for_status(daemon, narinfo, basic(short), 401)
        self.assertIn(b"expired", self.get(daemon, narinfo, basic(short)).body)
        self.assertEqual(400, self.get(daemon, f"{narinfo}?access_token={reader}").status)

        again = self.token(daemon, "create", "--name", "reader")
        self.assertEqual((1, ""), (again.returncode, again.stdout))
        listed = json.loads(self.token(daemon, "list", "--json").stdout)
        states = {each["name"]: each["state"] for each in listed}
        self.assertEqual(
            {"reader": "valid", "writer": "valid", "some": "valid", "short": "expired"}, states
        )
        self.assertEqual(0, self.token(daemon, "revoke", "reader").returncode)
        self.wait_for_status(daemon, narinfo, basic(reader), 401)
        self.assertIn(b"revoked", self.get(daemon, narinfo, basic(reader)).body)
        daemon.stop()
        self.assertIn("reader", {line.get("user") for line in requests(daemon)})
        listed = json.loads(self.token(daemon, "list", "--json").stdout)
        (found,) = [each for each in listed if each["name"] == "reader"]
        self.assertIsNotNone(found["last_used_at"])
        daemon.start()
        self.check_secrets(daemon)

    def test_the_token_of_the_settings(self) -> None:
        """`cache-get-token` closes reads, as in the Go program; Nix can send it by Basic."""
        options = ("--cache-get-token", STATIC, "--cache-allow-put-verb")
        daemon = self.daemon(self.mounted(), options=(*options, "--auth-metrics", "token"))
        for value, status in (
            ("", 401),
            ("Bearer wrong", 401),
            (f"Bearer {STATIC}", 200),
            (basic(STATIC), 200),
        ):
            for path in ("/nix-cache-info", "/metrics"):
                self.assertEqual(status, self.get(daemon, path, value).status, value)
        readiness = json.loads(self.get(daemon, "/readyz").body)
        self.assertEqual(
            {"reads": "token", "writes": "token", "deletes": "token"}, readiness["access"]
        )
        self.assertNotIn(STATIC, daemon.log)


class OpenTests(TokenStage):
    def test_uploads_that_are_open_to_everybody(self) -> None:
        """A line at the start and in /readyz says so until there is a token."""
        daemon = self.daemon(self.mounted(), options=("--cache-allow-put-verb",))
        self.assertIn("anybody who reaches the port may upload", daemon.log)
        found = json.loads(self.get(daemon, "/readyz").body)
        self.assertEqual("everybody", found["access"]["writes"])
        self.assertIn("ncps token create", " ".join(found["warnings"]))
        self.create(daemon, "ci", "--scope", "read,write")

        def is_closed() -> bool:
            facts = json.loads(self.get(daemon, "/readyz").body)
            return facts["access"]["writes"] == "token" and "warnings" not in facts

        wait_until(is_closed, "uploads to be closed", daemon=daemon)
        self.assertEqual(200, self.get(daemon, "/nix-cache-info").status)
        self.assertEqual(200, self.get(daemon, "/nix-cache-info", "Bearer x").status)
