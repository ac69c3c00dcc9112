"""Pins and removals by HTTP with tokens, and by commands."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath
from tests.system.program import Done, run_ncps
from tests.system.stage import Stage
from tests.system.wire import Answer
from tests.waiting import wait_until

SIZE = 150_000


class ClosuresStage(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.libc = self.cache.add(SIZE)
        self.app = self.cache.add(SIZE, references=(self.libc,))
        self.others = [self.cache.add(SIZE) for _ in range(12)]
        self.source = self.mounted()

    def command(self, daemon: Daemon, *words: str, token: str = "") -> Done:
        """Run a command with the settings of a daemon."""
        file = daemon.directory / "token"
        file.write_text(token)
        more = ("--token-file", str(file)) if token else ()
        return run_ncps(daemon, *words, *more)

    def token(self, daemon: Daemon, scope: str) -> str:
        done = self.command(daemon, "token", "create", "--name", f"t-{scope}", "--scope", scope)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def act(self, daemon: Daemon, method: str, path: str, token: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.ask(daemon, path, method=method, **headers)

    def pins(self, daemon: Daemon) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ask(daemon, "/pins?details=1").body)
        return found

    def fill(self, daemon: Daemon, *paths: StorePath) -> None:
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)


class PinTests(ClosuresStage):
    def test_a_pinned_closure_survives_eviction_and_a_lost_database(self) -> None:
        """Twelve other NARs pass through a store for seven; a rebuild restores the pin."""
        options = ("--cache-max-size", "1M", "--cache-lru-grace", "0s")
        daemon = self.daemon(self.source, options=options)
        target = f"/pin/{self.app.digest}.narinfo"
        self.assertIn(self.act(daemon, "POST", target).status, {401, 405})
        token = self.token(daemon, "pin")
        wait_until(
            lambda: self.act(daemon, "DELETE", target, token).status == 200,
            "the token to be known",
            daemon=daemon,
        )
        self.assertEqual(self.act(daemon, "POST", target, token).status, 404)
        done = self.command(
            daemon, "pin", "add", "--fetch", "--label", "release", self.app.digest, token=token
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(
            lambda: [pin["missing"] for pin in self.pins(daemon)] == [0],
            "the closure to be fetched",
            daemon=daemon,
        )
        for path in self.others:
            self.assert_served(daemon, path)
        self.wait_for_log(daemon, "removed", "NARs")
        self.source.stop()
        for path in (self.app, self.libc):
            self.assertEqual(self.nar(daemon, path).outcome, "hit")
        self.assertEqual(self.ask(daemon, "/pins").body, f'["{self.app.digest}"]\n'.encode())
        daemon.stop()
        for file in daemon.directory.glob("catalog.sqlite*"):
            file.unlink()
        done = self.command(daemon, "rebuild")
        self.assertEqual(done.returncode, 0, done.stderr)
        daemon.start()
        (pin,) = self.pins(daemon)
        self.assertEqual((pin["label"], pin["paths"], pin["missing"]), ("release", 2, 0))
        self.assertEqual(self.nar(daemon, self.libc).outcome, "hit")


class RemovalTests(ClosuresStage):
    def test_deletions_and_paths_that_never_come_back(self) -> None:
        """DELETE as in the Go program, `ncps rm` with its closure, and blocked paths."""
        daemon = self.daemon(self.source, options=("--cache-allow-delete-verb=true",))
        first, second = self.others[:2]
        self.fill(daemon, self.app, self.libc, first, second)
        target = self.nar_target(daemon, first)
        for path in (f"/{first.digest}.narinfo", target):
            self.assertEqual(self.act(daemon, "DELETE", path).status, 204, path)
        self.assertEqual(self.act(daemon, "DELETE", target).status, 404)
        self.assertNotIn(target.rpartition("/")[2], [f.name for f in daemon.stored_nars()])
        self.assertEqual(self.narinfo(daemon, first).outcome, "miss")
        self.assert_served(daemon, first)
        done = self.command(daemon, "rm", "--closure", self.app.digest)
        self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, 2), done.stderr)
        target = self.nar_target(daemon, second)
        gets = self.source.gets(second.nar_target)
        done = self.command(daemon, "rm", "--never-again", f"/nix/store/{second.digest}-x")
        self.assertEqual(done.returncode, 0, done.stderr)
        for path in (f"/{second.digest}.narinfo", target, f"/{second.digest}.narinfo"):
            self.assertEqual(self.ask(daemon, path).status, 404, path)
        self.assertEqual(self.source.gets(second.nar_target), gets)
        self.assertIn(second.digest, self.command(daemon, "rm", "--list-blocked").stdout)
        self.command(daemon, "rm", "--unblock", second.digest)
        self.assert_served(daemon, second)
