"""All replicas accept a new token, and all refuse a revoked one."""

from __future__ import annotations

from tests.cluster.replicas import ClusterStage, Replica
from tests.system.program import run_ncps
from tests.waiting import wait_until

SECONDS = 10.0
"""Seconds within which all replicas refuse a revoked token, on a busy machine."""


class TokenTests(ClusterStage):
    def token(self, replica: Replica, *words: str) -> str:
        done = run_ncps(replica, "token", *words)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.strip()

    def statuses(self, replicas: list[Replica], path: str, token: str) -> list[int]:
        value = f"Bearer {token}"
        return [self.ask(each, path, authorization=value).status for each in replicas]

    def test_a_token_is_made_and_revoked_at_one_replica(self) -> None:
        """The others accept it immediately, and refuse it within seconds, also from memory."""
        path = self.cache.add()
        options = ("--auth-reads", "token", "--cache-allow-put-verb")
        replicas = self.replicas(2, self.mounted().url, options=options)
        narinfo = f"/{path.digest}.narinfo"
        self.assertEqual([401, 401], self.statuses(replicas, narinfo, "ncps_wrong"))
        token = self.token(replicas[0], "create", "--name", "ci")
        for _ in range(4):  # in the usual way, and then ready answers
            self.assertEqual([200, 200], self.statuses(replicas, narinfo, token))
        self.token(replicas[1], "revoke", "ci")
        wait_until(
            lambda: self.statuses(replicas, narinfo, token) == [401, 401],
            "both replicas to refuse the token",
            deadline=SECONDS,
            daemon=replicas[0],
        )
        for replica in replicas:
            self.assertNotIn(token, replica.log)
            upload = self.ask(replica, f"/upload/nar/{'0' * 52}.nar", method="PUT")
            self.assertEqual(401, upload.status)
