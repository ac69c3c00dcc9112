"""Servers behind the replicas keep their connections open and do not answer."""

from __future__ import annotations

import time
from typing import Any

from tests.cluster import faults
from tests.cluster.replicas import ClusterStage


class Stalling(ClusterStage):
    """Causes a load while a server hangs."""

    under_load: Any = faults.Faults.under_load
    goes_on: Any = faults.Faults.goes_on
    settles: Any = faults.Faults.settles


class RedisTests(Stalling):
    def test_redis_stalls(self) -> None:
        """Hits do not notice; misses get 503 or 504, and all recovers by itself."""

        def trouble() -> None:
            self.backends.redis.freeze()
            time.sleep(faults.AWAY_S)
            self.backends.redis.thaw()

        stored_first, stored_second, *cold = self.under_load(trouble)
        for load in (stored_first, stored_second):
            self.assertEqual({200}, set(load.statuses))
        for load in cold:
            self.assertLessEqual(set(load.statuses), {200, 503, 504})


class DatabaseStalls:
    """The same with databases."""

    def test_database_stalls(self: Any) -> None:
        """Calls end at their deadlines, no answer is wrong, and all recovers by itself."""

        def trouble() -> None:
            self.backends.database.freeze()
            time.sleep(faults.AWAY_S)
            self.backends.database.thaw()

        for flag in ("connect", "statement"):
            self.shared = (*self.shared, f"--cache-database-{flag}-timeout", "2s")
        for load in self.under_load(trouble):
            self.assertLessEqual(set(load.statuses), {200, 503, 504})


class PostgreSQLTests(DatabaseStalls, Stalling):
    database_server = "PostgreSQL"


class MariaDBTests(DatabaseStalls, Stalling):
    database_server = "MariaDB"
