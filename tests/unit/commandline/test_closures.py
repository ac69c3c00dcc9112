"""`ncps pin` and `ncps rm`: their arguments, and the requests that they make."""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.commandline import caller, closures
from ncps.commandline.caller import Caller
from ncps.commandline.parser import WrongWords, build_parser
from ncps.errors import NcpsError, Refused
from tests.unit.settings.around import load_with

DIGEST = "0" * 32
OTHER = "1" * 32
SIGHT = {"hash": DIGEST, "paths": 3, "missing": 2, "missingPaths": [OTHER]}
REPORT = {"removed": [f"{DIGEST}-x"], "count": 1, "kept": 1, "busy": [], "size": 7}


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, str, object]] = []
        self.answers: list[Any] = []
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

        def ask(_: Caller, method: str, path: str, body: object = None) -> Any:
            self.asked.append((method, path, body))
            return self.answers.pop(0) if self.answers else None

        self.patch(Caller, "ask", ask)

    def run_words(self, *words: str) -> int:
        options = build_parser({}).parse_args(words)
        work = closures.remove if words[0] == "rm" else closures.pin
        return work(options, load_with({}))

    def test_pins_are_added(self) -> None:
        """Each path once, with label, end and the wish to fetch; missing paths are printed."""
        self.answers = [SIGHT, SIGHT]
        words = ("--label", "a b", "--expires", "90d", "--fetch")
        path = f"/nix/store/{DIGEST}-x"
        self.assertEqual(self.run_words("pin", "add", path, f"{OTHER}.narinfo", DIGEST, *words), 0)
        query = "label=a+b&expires=90d&fetch=1"
        self.assertEqual(
            self.asked,
            [("POST", f"/pin/{each}.narinfo?{query}", None) for each in (DIGEST, OTHER)],
        )
        self.assertIn(f"missing {OTHER}", self.out.getvalue())
        self.assertIn("1 more are missing", self.err.getvalue())

    def test_pins_are_removed_and_listed(self) -> None:
        """The list is JSON on request."""
        url = f"http://cache.example/{DIGEST}.narinfo"
        self.assertEqual(self.run_words("pin", "rm", url), 0)
        told = SIGHT | {"label": "x", "expires": None, "size": 5}
        self.answers = [[told], [told], []]
        self.run_words("pin", "list")
        line = f"{DIGEST}  3 paths, 2 missing, 5 bytes  until removed  x"
        self.assertIn(line, self.out.getvalue())
        self.out.truncate(0), self.out.seek(0)
        self.run_words("pin", "list", "--json")
        self.assertEqual(json.loads(self.out.getvalue()), [told])
        self.run_words("pin", "list")
        self.assertEqual(
            [each[:2] for each in self.asked],
            [("DELETE", f"/pin/{DIGEST}.narinfo")] + [("GET", "/pins?details=1")] * 3,
        )

    def test_paths_are_removed(self) -> None:
        """All flags are passed on; if a path stays, the exit code is 1."""
        self.answers = [REPORT, REPORT | {"busy": [OTHER]}]
        words = ("--closure", "--never-again", "--dry-run", "--force")
        self.assertEqual(self.run_words("rm", DIGEST, *words), 0)
        wishes = {"closure": True, "never_again": True, "dry_run": True, "force": True}
        self.assertEqual(self.asked, [("POST", "/api/v1/remove", {"hashes": [DIGEST], **wishes})])
        self.assertIn(f"would remove {DIGEST}-x", self.out.getvalue())
        self.assertEqual(self.run_words("rm", DIGEST), 1)
        self.assertIn(f"{OTHER} stays", self.err.getvalue())

    def test_blocked_paths(self) -> None:
        """They can be listed and unblocked."""
        self.answers = [[{"hash": DIGEST, "name": "", "blocked": "2026-01-01T00:00:00Z"}]]
        self.run_words("rm", "--list-blocked")
        self.run_words("rm", "--unblock", DIGEST)
        self.assertEqual(
            [each[:2] for each in self.asked],
            [("GET", "/api/v1/blocked"), ("DELETE", f"/api/v1/blocked/{DIGEST}")],
        )

    def test_wrong_words(self) -> None:
        """A missing path and a wrong one are errors."""
        for words in (("rm",), ("rm", "x"), ("pin", "add"), ("rm", "e" * 32), ("rm", "0" * 31)):
            self.assertRaises(WrongWords, self.run_words, *words)
        self.assertEqual(self.asked, [])


class CallerTests(SynchronousTestCase):
    def caller(self, addr: str = "", **options: str | None) -> Caller:
        given = {"server": None, "token_file": None} | options
        settings = load_with({"server-addr": addr} if addr else {})
        return Caller.of(Namespace(**given), settings)

    def test_the_daemon_of_the_settings(self) -> None:
        """The first address without TLS is used; all interfaces include this machine."""
        for addr, url in (
            ("", "http://127.0.0.1:8501"),
            (":8502", "http://127.0.0.1:8502"),
            ("192.0.2.1:8503", "http://192.0.2.1:8503"),
            ("[::1]:8504", "http://[::1]:8504"),
        ):
            self.assertEqual(self.caller(addr).url, url)
        self.assertEqual(self.caller(server="https://c/x/").url, "https://c/x")
        self.assertRaises(WrongWords, self.caller, "unix:/run/ncps.sock")

    def test_the_token(self) -> None:
        """It comes from a file, else from the environment; `repr` does not show it."""
        self.patch(os, "environ", {caller.TOKEN: " secret1\n"})
        self.assertEqual(self.caller().token, "secret1")
        file = Path(self.mktemp())
        file.write_text("secret2\n")
        found = self.caller(token_file=str(file))
        self.assertEqual(found.token, "secret2")
        self.assertNotIn("secret2", repr(found))
        self.assertRaises(Refused, self.caller, token_file="/does/not/exist")

    def test_answers(self) -> None:
        """An empty answer is None; a refusal is an error with its text and a hint."""
        self.assertIsNone(caller._read(204, b""))
        self.assertEqual(caller._read(200, b"[1]"), [1])
        with self.assertRaisesRegex(Refused, "409: x is pinned"):
            caller._read(409, b"x is pinned\n")
        with self.assertRaisesRegex(Refused, "--token-file"):
            caller._read(401, b"no")
        with self.assertRaisesRegex(NcpsError, "is the server ncps"):
            caller._read(200, b"<html>")
