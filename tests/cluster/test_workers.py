"""Replicas with several workers each are one cache, too."""

from __future__ import annotations

from tests.cluster.replicas import ClusterStage
from tests.system.faults import Stall
from tests.waiting import wait_until

SIZE = 24 * 1024 * 1024
MIDDLE = SIZE // 2


class WorkersTests(ClusterStage):
    database_server = "PostgreSQL"

    def test_one_fetch_for_all_workers_of_all_replicas(self) -> None:
        """All workers of all replicas serve the bytes of one fetch while they arrive."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Stall(MIDDLE))
        options = ["--workers", "2", "--cache-upstream-idle-timeout", "60s"]
        replicas = self.replicas(2, origin.url, options=options)
        for replica in replicas:
            wait_until(
                lambda: "2 workers on" in replica.log,  # noqa: B023
                "all workers",
                deadline=120,
                daemon=replica,
            )
        readers = self.readers(replicas, path, 24)
        wait_until(
            lambda: min(reader.position for reader in readers) >= MIDDLE - 1024 * 1024,
            "bytes at every client",
            deadline=60,
            daemon=replicas[0],
        )
        origin.release()
        self.assert_all_read(readers)
        self.assertEqual(1, origin.gets(path.nar_target))
