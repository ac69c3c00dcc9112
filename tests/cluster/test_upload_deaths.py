"""A replica is killed at each request to S3 and each statement for PostgreSQL during an upload.

The test finds the steps itself, as in `tests/system/test_upload_deaths.py`. The replica dies
before it sends the bytes of a step, so the servers have all earlier steps.
"""

from __future__ import annotations

import hashlib

from tests.cluster.test_postgresql_locks import WithoutRedis
from tests.machines.stepped import S3, Steps
from tests.system.caches import to_base32
from tests.system.deaths import DyingStage
from tests.system.uploader import ALLOWED
from tests.waiting import wait_until

DATABASE = "PostgreSQL"
NOWHERE = "http://127.0.0.1:9"


class DeathAtEachMessageTests(WithoutRedis, DyingStage):
    def setUp(self) -> None:
        super().setUp()
        (replica,) = self.make_replicas(1, NOWHERE, options=(ALLOWED,))
        servers = {self.backends.s3.port: S3, self.backends.database.port: DATABASE}
        self.begin(replica, Steps(replica.directory, servers))

    def see_store(self) -> None:
        """See `DyingStage`."""
        s3 = self.backends.s3
        for key in s3.sizes(self.bucket, "store/nar/"):
            status, data = s3.request("GET", f"/{self.bucket}/{key}")
            self.assertEqual(200, status)
            found = to_base32(hashlib.sha256(data).digest())
            self.assertEqual(key.rpartition("/")[2].partition(".")[0], found)
        replica = self.served_by
        wait_until(lambda: not self.spools(replica), "spools to go", daemon=replica)

    def test_each_message(self) -> None:
        """Confirmed uploads are there, none is incomplete, and the next upload succeeds."""
        steps = self.die_at_each_step(50_000, "none", "zstd")
        # The number of calls differs from upload to upload, so a kind may meet no death.
        for kind in (f"{S3} PUT", DATABASE, "COMMIT", "INSERT INTO nar_files", "pg_notify"):
            if not any(kind in step for step in steps):
                self.die_before(kind, 50_000, "zstd")
        self.assertIn("sendto", self.steps.taken)
