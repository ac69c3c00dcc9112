"""Leases and notices in a healthy real PostgreSQL."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.contract.leases import SharedLeasesContract
from tests.contract.notices import NoticesContract
from tests.integration.postgresql_replica import Replica, make_tables
from tests.integration.servers import shared


class PostgresLeasesTests(SharedLeasesContract, TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.server = shared.postgresql()
        url = self.server.new_database()
        self.database = url.rpartition("/")[2]
        make_tables(url)
        # Nothing here may depend on polling: that would take longer than a test may.
        here = Replica(url, address=self.address, poll=100)
        there = Replica(url, address=self.other_address, poll=100)
        for replica in (here, there):
            await replica.leases.start()
            self.addCleanup(replica.stop)
        self.leases, self.other = here.leases, there.leases

    def tearDown(self) -> None:
        """Check that no lock is left."""
        locks = self.server.execute(
            "SELECT * FROM pg_locks WHERE locktype = 'advisory'", self.database
        )
        self.assertEqual(locks, [])


class PostgresNoticesTests(NoticesContract, TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        url = shared.postgresql().new_database()
        make_tables(url)
        here, there = Replica(url), Replica(url)
        for replica in (here, there):
            await replica.leases.start()
            self.addCleanup(replica.stop)
        self.notices, self.other_notices = here.notices, there.notices
