"""Replicas on PostgreSQL and S3 without Redis: leases and notices are in the database, too."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster import faults, streaming, uploading
from tests.cluster.replicas import ClusterStage
from tests.system.faults import Only, Stall


class WithoutRedis(ClusterStage):
    """Replicas without Redis."""

    database_server = "PostgreSQL"

    def setUp(self) -> None:
        super().setUp()
        self.share("--cache-lock-backend", "postgresql")
        at = self.shared.index("--cache-redis-addrs")
        self.shared = (*self.shared[:at], *self.shared[at + 2 :])


class StreamingTests(WithoutRedis, streaming.Streaming):
    """One fetch for all."""


class RestartTests(WithoutRedis):
    under_load: Any = faults.Faults.under_load
    goes_on: Any = faults.Faults.goes_on
    settles: Any = faults.Faults.settles

    def test_database_is_restarted_under_load(self) -> None:
        """All leases are lost immediately, and taken again."""
        self.under_load(lambda: faults.restart(self.backends.database))

    def test_database_is_restarted_in_the_middle_of_a_nar(self) -> None:
        """The holder's lease is lost, and every client still gets every byte."""
        path = self.cache.add(streaming.SIZE, compression="none")
        origin = self.mounted(Only(Stall(streaming.MIDDLE), 1))
        options = ["--cache-upstream-idle-timeout", "60s"]
        replicas = self.replicas(3, origin.url, options=options)
        readers = self.readers(replicas, path, 3, first=replicas[0])
        origin.wait_for_stall(path.nar_target)
        readers += self.readers(replicas[1:], path, 6)
        self.backends.database.stop()
        self.backends.database.start()
        time.sleep(2.0)
        origin.release()
        self.assert_all_read(readers)
        self.assertLessEqual(origin.gets(path.nar_target), 3)
        for replica in replicas:
            self.assert_hit(replica, path)


class UploadLeaseTests(uploading.LeaseFaults, WithoutRedis):
    """The lease of a NAR is lost while a replica publishes it."""

    HELD = (
        "FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    def setUp(self) -> None:
        super().setUp()
        self.before = self.locks()

    def locks(self) -> int:
        """Return the advisory locks in the database, also those of the sessions themselves."""
        ((found,),) = self.backends.database.execute(
            f"SELECT count(*) {self.HELD}", self.database_name
        )
        return int(found)

    def leases(self) -> list[str]:
        """Return a word for each held lease."""
        return ["lease"] * max(0, self.locks() - self.before)

    def lose_leases(self) -> None:
        """Cut the sessions with the leases, and wait until the first replica notices."""
        self.backends.database.execute(
            f"SELECT pg_terminate_backend(pid) {self.HELD}", self.database_name
        )
        self.wait_for_log(self.first, "session with the leases", "ended")
