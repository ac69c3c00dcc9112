"""Pins and removals at one replica, and their effect on the others."""

from __future__ import annotations

import json

from tests.cluster.replicas import ClusterStage, Replica
from tests.system.caches import StorePath
from tests.system.program import run_ncps
from tests.system.wire import Answer
from tests.waiting import wait_until

SIZE = 150_000
TOLD_S = 10.0
"""Seconds within which a notice reaches another replica, on a busy machine."""


class KeeperStage(ClusterStage):
    """Two replicas, and a token for pins and removals."""

    def setUp(self) -> None:
        super().setUp()
        self.libc = self.cache.add(SIZE, compression="none")
        self.app = self.cache.add(SIZE, compression="none", references=(self.libc,))
        self.others = [self.cache.add(SIZE, compression="none") for _ in range(12)]
        self.source = self.mounted()

    def pair(self, *options: str) -> list[Replica]:
        """Return two replicas, and make a token that may pin and delete."""
        replicas = self.replicas(2, self.source.url, options=options)
        made = run_ncps(
            replicas[0], "token", "create", "--name", "keeper", "--scope", "read,pin,delete"
        )
        self.assertEqual(0, made.returncode, made.stderr)
        self.secret = made.stdout.strip()
        for replica in replicas:
            wait_until(
                lambda: self.act(replica, "DELETE", f"/pin/{'0' * 32}.narinfo").status == 200,  # noqa: B023
                "the token to be known",
                daemon=replica,
            )
        return replicas

    def act(self, replica: Replica, method: str, path: str) -> Answer:
        return self.ask(replica, path, method=method, authorization=f"Bearer {self.secret}")

    def remove(self, replica: Replica, *words: str) -> None:
        """Run `ncps rm` beside a replica."""
        file = self.directory / "token"
        file.write_text(self.secret)
        done = run_ncps(replica, "rm", "--token-file", str(file), *words)
        self.assertEqual(0, done.returncode, done.stderr)

    def warm(self, replicas: list[Replica], *paths: StorePath) -> dict[str, str]:
        """Put answers about these paths into all memories; return the targets of their NARs."""
        for path in paths:
            self.assert_served(replicas[0], path)
            for replica in replicas:
                self.assert_hit(replica, path)
                for _ in range(3):
                    self.assertEqual("hit", self.narinfo(replica, path).outcome)
        return {path.digest: self.nar_target(replicas[0], path) for path in paths}

    def withdraw(self, *paths: StorePath) -> None:
        """Make the upstream answer 404 for these paths."""
        for path in paths:
            self.source.withdraw(f"/{path.digest}.narinfo")
            self.source.withdraw(path.nar_target)

    def stored(self) -> set[str]:
        """Return the file names of the NARs in the bucket."""
        keys = self.backends.s3.sizes(self.bucket, "store/nar/")
        return {key.rpartition("/")[2] for key in keys}

    def becomes(self, replica: Replica, status: int, target: str) -> None:
        """Wait until a notice has reached a replica."""
        wait_until(
            lambda: self.ask(replica, target).status == status,
            f"{target} to be {status}",
            deadline=TOLD_S,
            daemon=replica,
        )


class Closing(KeeperStage):
    """Tests for every database."""

    def test_a_pinned_path_is_evicted_by_no_other_replica(self) -> None:
        """All replicas list the pin; twelve NARs pass through a store for seven, and it stays."""
        first, second = self.pair("--cache-max-size", "1M", "--cache-lru-grace", "0s")
        self.warm([first, second], self.libc, self.app)
        self.assertEqual(200, self.act(first, "POST", f"/pin/{self.app.digest}.narinfo").status)
        expected = json.dumps([self.app.digest]).encode() + b"\n"
        for replica in (first, second):
            self.assertEqual(expected, self.ask(replica, "/pins").body)
        first.stop()
        for path in self.others:
            self.assert_served(second, path)
        self.wait_for_log(second, "removed", "NARs")
        self.source.stop()
        for path in (self.app, self.libc):
            self.assertEqual("hit", self.nar(second, path).outcome)
        self.assertEqual(200, self.act(second, "DELETE", f"/pin/{self.app.digest}.narinfo").status)
        first.start()
        self.assertEqual(b"[]\n", self.ask(first, "/pins").body)

    def test_a_removed_path_is_served_by_no_other_replica(self) -> None:
        """By `ncps rm` and by DELETE: the other replicas drop their answers in memory."""
        first, second = self.pair()
        closure = [self.app, self.libc]
        gone, half = self.others[:2]
        targets = self.warm([first, second], *closure, gone, half)
        self.withdraw(*closure, gone, half)
        self.remove(first, "--closure", self.app.digest)
        for path in closure:
            self.becomes(second, 404, f"/{path.digest}.narinfo")
            self.becomes(second, 404, targets[path.digest])
        self.assertEqual(204, self.act(second, "DELETE", f"/{gone.digest}.narinfo").status)
        self.becomes(first, 404, f"/{gone.digest}.narinfo")
        self.assertEqual(204, self.act(second, "DELETE", targets[half.digest]).status)
        self.becomes(first, 404, targets[half.digest])
        self.becomes(first, 404, f"/{half.digest}.narinfo")
        for path in (*closure, half):
            self.assertNotIn(targets[path.digest].rpartition("/")[2], self.stored())

    def test_a_blocked_path_is_fetched_by_no_other_replica(self) -> None:
        """It is 404 at all, though the upstream has it; after an unblock all serve it."""
        first, second = self.pair()
        path, cold = self.others[:2]
        targets = self.warm([first, second], path)
        self.remove(first, "--never-again", path.digest, cold.digest)
        for replica in (second, first):
            self.becomes(replica, 404, f"/{path.digest}.narinfo")
            self.becomes(replica, 404, targets[path.digest])
            self.becomes(replica, 404, f"/{cold.digest}.narinfo")
        self.assertEqual(0, self.source.gets(cold.nar_target))
        self.assertEqual(1, self.source.gets(path.nar_target))
        for each in (path, cold):
            self.remove(second, "--unblock", each.digest)
            for replica in (first, second):
                self.becomes(replica, 200, f"/{each.digest}.narinfo")
                self.assert_served(replica, each)

    def test_a_removal_while_notices_are_lost(self) -> None:
        """While Redis is away, a removal that needs a lease fails, one for ever succeeds.

        The other replica learns of it when Redis is back.
        """
        first, second = self.pair()
        path, blocked = self.others[:2]
        targets = self.warm([first, second], path, blocked)
        self.withdraw(path, blocked)
        redis = self.backends.redis
        redis.kill()
        try:
            answer = self.act(first, "DELETE", targets[path.digest])
            self.assertEqual(503, answer.status)
            self.assertIn("retry-after", answer.headers)
            self.assertEqual("hit", self.nar(first, path).outcome)
            self.remove(first, "--never-again", blocked.digest)
            self.assertEqual({targets[path.digest].rpartition("/")[2]}, self.stored())
            self.assertEqual(404, self.ask(first, f"/{blocked.digest}.narinfo").status)
            self.assertEqual(404, self.ask(first, targets[blocked.digest]).status)
        finally:
            redis.start()
        self.becomes(second, 404, f"/{blocked.digest}.narinfo")
        self.becomes(second, 404, targets[blocked.digest])
        wait_until(
            lambda: self.act(first, "DELETE", targets[path.digest]).status == 204,
            "the NAR to be deleted",
            daemon=first,
        )
        self.becomes(second, 404, targets[path.digest])
