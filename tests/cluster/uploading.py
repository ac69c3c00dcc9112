"""Uploads to replicas whose servers go away in the middle: 503, and no incomplete upload."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

from tests.cluster.replicas import ClusterStage, Replica
from tests.fakes.samples import Sample
from tests.integration.databases import dialect_of
from tests.system.uploader import ALLOWED, UploadStage, head
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until

DONE = (200, 201)
NOWHERE = "http://127.0.0.1:9"
"""An upstream that is away."""

HOLDS = {
    "PostgreSQL": "LOCK TABLE nar_files IN SHARE MODE",
    "MariaDB": "LOCK TABLES nar_files READ",
    "MySQL": "LOCK TABLES nar_files READ",
}
"""Statements that let a transaction read rows of NARs, and make it wait before it writes one."""


class UploadingStage(ClusterStage, UploadStage):
    """Two replicas for uploads, whose upstream is away."""

    statement_timeout = "3s"

    def setUp(self) -> None:
        super().setUp()
        more = (ALLOWED, "--cache-database-statement-timeout", self.statement_timeout)
        self.first, self.second = self.replicas(2, NOWHERE, options=more)

    def begin(self, one: Sample) -> socket.socket:
        """Send the first half of a NAR to the first replica, which then has it in a spool."""
        line = self.connect(self.first)
        half = len(one.file) // 2
        line.sendall(head(f"/upload/{one.url}", f"Content-Length: {len(one.file)}"))
        line.sendall(one.file[:half])
        wait_until(lambda: self.spools(self.first), "the upload to begin", daemon=self.first)
        return line

    def end(self, line: socket.socket, one: Sample) -> tuple[int, str]:
        """Send the second half; return the answer."""
        line.sendall(one.file[len(one.file) // 2 :])
        return self.answer(line)

    def refuse_for_now(self, answer: tuple[int, str]) -> None:
        """Check that the answer is 503 with Retry-After."""
        self.assertEqual(503, answer[0], answer[1])
        self.assertIn("Retry-After: ", self.last_head)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make each publication of a NAR wait after its bytes and before its row."""
        dialect = dialect_of(self.setting("--cache-database-url"), statement_timeout_s=60.0)
        with closing(dialect.connect()) as connection:
            connection.cursor().execute("BEGIN")
            connection.cursor().execute(HOLDS[self.database_server])
            yield
            with suppress(*dialect.errors):
                connection.cursor().execute("ROLLBACK")

    def key_of(self, one: Sample) -> str:
        """Return the key of a NAR in the bucket; empty while it is not there."""
        keys = self.backends.s3.sizes(self.bucket, "store/nar/")
        name = one.url.rpartition("/")[2]
        return next((key for key in keys if key.endswith(name)), "")

    def wait_for_bytes(self, one: Sample) -> None:
        """Wait until the bytes of a NAR have their final name."""
        wait_until(lambda: self.key_of(one), "the bytes of the NAR", daemon=self.first)

    def assert_taken(self, put: Callable[[], tuple[int, str]]) -> None:
        """Check that an upload succeeds; the client repeats after 503.

        A replica needs some time to use a server again.
        """

        def is_taken() -> bool:
            answer = put()
            if answer[0] == 503:
                self.refuse_for_now(answer)
                return False
            self.assertIn(answer[0], DONE)
            return True

        wait_until(is_taken, "the upload to be taken", daemon=self.first)

    def assert_well_again(self, one: Sample) -> None:
        """Check that no lease and no spool is left, and that the same upload succeeds."""
        for replica in (self.first, self.second):
            self.wait_until_ready(replica)
            wait_until(lambda: not self.unfinished(replica), "spools to go", daemon=replica)  # noqa: B023
        wait_until(lambda: not self.leases(), "leases to go", daemon=self.first)
        shown = self.ask(self.second, f"/upload/{one.digest}.narinfo").status
        self.assertEqual(404, shown)
        self.assert_taken(partial(self.put_nar, self.second, one))
        self.assert_taken(partial(self.put_narinfo, self.first, one))
        for replica in (self.first, self.second):
            self.assert_served_whole(replica, one)

    def wait_until_ready(self, replica: Replica) -> None:
        wait_until(lambda: self.ask(replica, "/readyz").status == 200, "readiness", daemon=replica)

    def leases(self) -> list[str]:
        """Return the keys of the held leases in Redis."""
        prefix = self.setting("--cache-lock-redis-key-prefix")
        found = self.backends.redis.say("--scan", "--pattern", f"{prefix}*").split()
        return [key for key in found if not key.endswith("#fence")]


class DatabaseFaults(UploadingStage):
    """The database goes away while a replica takes an upload."""

    def away(self) -> tuple[tuple[Callable[[], None], Callable[[], None]], ...]:
        """Return the ways to be away: how each begins, and how it ends."""
        database = self.backends.database
        return (database.crash, database.start), (database.freeze, database.thaw)

    def test_database_goes_away_in_the_middle_of_a_nar(self) -> None:
        """It is killed or stopped: 503, and the same upload succeeds when it is back."""
        for number, (go, come) in enumerate(self.away()):
            one = upload(f"middle-{number}", "none", 2_000_000)
            line = self.begin(one)
            go()
            try:
                self.refuse_for_now(self.end(line, one))
            finally:
                come()
            self.assert_well_again(one)

    def test_database_goes_away_between_bytes_and_row(self) -> None:
        """The bytes have their name and no row: 503, and no narinfo names them."""
        for number, (go, come) in enumerate(self.away()):
            one = upload(f"row-{number}", "none", 2_000_000)
            line = self.begin(one)
            with self.held():
                line.sendall(one.file[len(one.file) // 2 :])
                self.wait_for_bytes(one)
                go()
                try:
                    self.refuse_for_now(self.answer(line))
                finally:
                    come()
            self.assert_well_again(one)

    def test_database_goes_away_before_a_narinfo(self) -> None:
        """It is killed or stopped: 503, and the narinfo is missing or complete."""
        for number, (go, come) in enumerate(self.away()):
            one = upload(f"narinfo-{number}", "zstd", 200_000)
            self.assertEqual(201, self.put_nar(self.first, one)[0])
            go()
            try:
                self.refuse_for_now(self.put_narinfo(self.first, one))
            finally:
                come()
            self.assert_well_again(one)

    def test_cut_connections_fail_no_upload(self) -> None:
        """All connections are cut, before the last byte of a NAR and before its narinfo."""
        one = upload("cut", "none", 2_000_000)
        line = self.begin(one)
        self.backends.database.kill_connections(self.database_name)
        self.assertEqual(201, self.end(line, one)[0])
        self.backends.database.kill_connections(self.database_name)
        self.assertEqual(201, self.put_narinfo(self.first, one)[0])
        for replica in (self.first, self.second):
            self.assert_served_whole(replica, one)


class LeaseFaults(UploadingStage):
    """The lease of a NAR is lost while a replica publishes it; the database is PostgreSQL."""

    statement_timeout = "20s"

    def lose_leases(self) -> None:
        """Make the lock backend forget all leases, and wait until the first replica notices."""
        self.backends.redis.say("FLUSHALL")
        self.wait_for_log(self.first, "lease", "was lost")

    def publish_without_lease(self, one: Sample) -> socket.socket:
        """Upload a NAR whose lease is lost between its bytes and its row; call while held."""
        line = self.begin(one)
        line.sendall(one.file[len(one.file) // 2 :])
        self.wait_for_bytes(one)
        self.lose_leases()
        return line

    def waiting(self) -> int:
        """Return the number of transactions that wait for the lock of `held`."""
        ((found,),) = self.backends.database.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
            self.database_name,
        )
        return int(found)

    def test_two_replicas_publish_one_nar(self) -> None:
        """One has lost its lease to the other: both may finish, and nothing is damaged."""
        one = upload("twice", "none", 2_000_000)
        with self.held():
            line = self.publish_without_lease(one)
            other = self.in_background(lambda: self.put_nar(self.second, one))
            wait_until(lambda: self.waiting() >= 2, "both to wait", daemon=self.second)
        for status, text in (self.answer(line), other.result(60.0)):
            self.assertIn(status, (*DONE, 503), text)
        self.assert_well_again(one)

    def test_bytes_are_removed_after_the_lease_was_lost(self) -> None:
        """Another process may remove them then: 503, and no row names them."""
        one = upload("removed", "none", 2_000_000)
        with self.held():
            line = self.publish_without_lease(one)
            self.backends.s3.request("DELETE", f"/{self.bucket}/{self.key_of(one)}")
        self.refuse_for_now(self.answer(line))
        for replica in (self.first, self.second):
            self.assertEqual(404, self.ask(replica, f"/upload/{one.url}").status)
        self.assert_well_again(one)


class RedisFaults(LeaseFaults):
    """The lease is in Redis, which also goes away completely."""

    def test_redis_goes_away_in_the_middle_of_a_nar(self) -> None:
        """It is killed or stopped: 503, and the same upload succeeds when it is back."""
        redis = self.backends.redis
        for number, (go, come) in enumerate(
            ((redis.kill, redis.start), (redis.freeze, redis.thaw))
        ):
            one = upload(f"redis-{number}", "none", 2_000_000)
            line = self.begin(one)
            go()
            try:
                self.refuse_for_now(self.end(line, one))
            finally:
                come()
            self.assert_well_again(one)
