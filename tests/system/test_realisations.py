"""Realisations of content-addressed derivations at a daemon of two workers."""

from __future__ import annotations

import http.client
from pathlib import Path

from ncps.nix.keys import PublicKey, verify_any
from ncps.nix.realisation import MAX_SIZE, Realisation, RealisationKey
from ncps.nix.storepath import StorePath
from tests.e2e.daemon import Daemon
from tests.system.program import run_ncps
from tests.system.stage import Stage

DIGEST = "0123456789abcdfghijklmnpqrsvwxyz"
KEYS = (
    RealisationKey("sha256:" + "ab" * 32, "out"),
    RealisationKey(f"{DIGEST}-hello-1.0.drv", "out"),
)
PATH = StorePath(DIGEST, "hello-1.0")
OTHER = StorePath(DIGEST[::-1], "hello-1.0")
ASKED = 8
"""Connections for requests, so that both workers are reached."""


def put(daemon: Daemon, path: str, body: bytes) -> tuple[int, bytes]:
    """Upload; return the status and the text."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    try:
        connection.request("PUT", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class UploadTests(Stage):
    def check(self, daemon: Daemon) -> None:
        """Check that every worker serves the upload, with a good signature."""
        public = PublicKey.parse(daemon.public_key())
        for key in KEYS:
            for path in ASKED * [f"/{key.path}.doi"]:
                answer = self.ask(daemon, path)
                self.assertEqual((200, "hit"), (answer.status, answer.headers["x-cache"]))
                told = Realisation.parse(answer.body, key)
                self.assertEqual(PATH, told.out_path)
                (message,) = told.fingerprints
                self.assertIsNotNone(verify_any([public], message, told.signatures))

    def test_uploads_are_there_at_once_and_stay(self) -> None:
        """Both workers serve it after they denied it, after SIGKILL, and after a lost database."""
        options = ("--workers", "2", "--cache-allow-put-verb")
        daemon = self.daemon(self.origin(), options=options)
        for key in KEYS:
            path = f"/{key.path}.doi"
            self.assertEqual({404}, {self.ask(daemon, path).status for _ in range(ASKED)})
            below = self.ask(daemon, f"/upload{path}")
            self.assertEqual((404, "miss"), (below.status, below.headers["x-cache"]))
            text = Realisation(key, PATH).render()
            self.assertEqual((201, b"created\n"), put(daemon, f"/upload{path}", text))
            self.assertEqual((200, b"already known\n"), put(daemon, f"/upload{path}", text))
        self.check(daemon)
        path = f"/upload/{KEYS[1].path}.doi"
        status, said = put(daemon, path, Realisation(KEYS[1], OTHER).render())
        self.assertEqual((200, b"another one is already known, and stays\n"), (status, said))
        status, said = put(daemon, path, Realisation(KEYS[0], PATH).render()[:40])
        self.assertEqual(400, status)
        self.assertIn(b"JSON", said)
        self.assertEqual(413, put(daemon, path, b" " * (MAX_SIZE + 1))[0])
        self.check(daemon)
        daemon.kill()
        daemon.start()
        self.check(daemon)
        daemon.stop()
        Path(daemon.directory / "catalog.sqlite").unlink()
        done = run_ncps(daemon, "rebuild")
        self.assertIn("2 realisations recorded, 0 refused", done.stdout, done.stderr)
        daemon.start()
        self.check(daemon)

    def test_without_permission_no_client_uploads(self) -> None:
        """Uploads get 405, as for every method that is switched off."""
        daemon = self.daemon(self.origin())
        text = Realisation(KEYS[0], PATH).render()
        for prefix in ("", "/upload"):
            self.assertEqual(405, put(daemon, f"{prefix}/{KEYS[0].path}.doi", text)[0])
        self.assertEqual(404, self.ask(daemon, f"/{KEYS[0].path}.doi").status)
