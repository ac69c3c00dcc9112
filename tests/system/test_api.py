"""Requests about many paths to a running daemon, and the description of its routes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.e2e.daemon import Daemon
from tests.services import require
from tests.system.caches import StorePath
from tests.system.stage import Stage
from tests.system.wire import ask

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "openapi.yaml"
FUZZER: Final = Path(sys.executable).with_name("schemathesis")
REFUSALS: Final = "positive_data_acceptance"
"""The check that each well-formed upload succeeds is left out: no key vouches for these."""

SETTINGS: Final = """\
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""
"""A route with its own list of statuses that refuse a body, and 413 for too many entries."""

WRITES: Final = ("--cache-allow-put-verb", "--cache-allow-delete-verb")
ABSENT: Final = "0" * 32


class ApiTests(Stage):
    def closure_of_three(self) -> tuple[StorePath, StorePath, StorePath]:
        """Make a path that needs another one, which needs a third one and itself."""
        leaf = self.cache.add(10_000)
        middle = self.cache.add(20_000, references=[leaf], itself=True)
        return self.cache.add(30_000, references=[middle, leaf]), middle, leaf

    def query(self, daemon: Daemon, *digests: str, upstreams: bool = False) -> list[Any]:
        body = json.dumps({"hashes": digests, "upstreams": upstreams}).encode()
        answer = ask(daemon.port, "/api/v1/query", method="POST", body=body)
        self.assertEqual(200, answer.status, answer.body)
        paths: list[Any] = answer.json["paths"]
        return paths

    def closure(self, daemon: Daemon, path: StorePath, query: str = "") -> list[Any]:
        answer = self.ask(daemon, f"/api/v1/closure/{path.digest}{query}")
        self.assertEqual((200, True), (answer.status, answer.whole), answer.body)
        return [json.loads(line) for line in answer.body.splitlines()]

    def test_questions_of_a_builder(self) -> None:
        """The state of paths, with and without upstreams; and a closure, fetched and stored."""
        root, middle, leaf = self.closure_of_three()
        origin = self.mounted()
        daemon = self.daemon(origin)
        digests = [root.digest, leaf.digest, ABSENT]
        found = self.query(daemon, *digests)
        self.assertEqual(["unknown"] * 3, [path["where"] for path in found])
        self.assertEqual(404, self.ask(daemon, f"/api/v1/closure/{root.digest}").status)

        self.assert_served(daemon, leaf)
        self.wait_until_stored(daemon, leaf)
        found = self.query(daemon, *digests, upstreams=True)
        self.assertEqual(["upstream", "stored", "absent"], [path["where"] for path in found])
        self.assertEqual(
            (len(leaf.nar), len(leaf.file)), (found[1]["narSize"], found[1]["fileSize"])
        )
        self.assertEqual(root.path, found[0]["storePath"])

        *paths, end = self.closure(daemon, root)
        self.assertEqual({"end": True, "paths": 3, "missing": 1, "cut": False}, end)
        (missing,) = (path for path in paths if "narinfo" not in path)
        self.assertEqual((middle.path, "unknown"), (missing["storePath"], missing["where"]))

        *paths, end = self.closure(daemon, root, "?fetch=1")
        self.assertEqual((3, 0), (end["paths"], end["missing"]))
        for path in paths:
            served = self.ask(daemon, f"/{path['hash']}.narinfo").body.decode()
            self.assertEqual(served, path["narinfo"])

        origin.stop()
        daemon.stop()
        daemon.start()
        self.assertEqual(["stored"], [path["where"] for path in self.query(daemon, leaf.digest)])

    def test_the_description_is_true(self) -> None:
        """Hundreds of right and wrong requests get the answers of the description."""
        require(FUZZER.exists(), "schemathesis (pip install schemathesis)")
        self.closure_of_three()
        daemon = self.daemon(self.mounted(), options=WRITES)
        (self.directory / "schemathesis.toml").write_text(SETTINGS)
        told = subprocess.run(
            [
                *(str(FUZZER), "--no-color", "run", "--url", daemon.url),
                *("--phases", "coverage,fuzzing", "--max-examples", "2", "--seed", "1"),
                *("--exclude-checks", REFUSALS, "--workers", "1", str(DOCUMENT)),
            ],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(0, told.returncode, told.stdout)
