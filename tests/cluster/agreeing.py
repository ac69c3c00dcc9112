"""Replicas agree; test_postgresql, test_mariadb and test_mysql have the databases."""

from __future__ import annotations

import re

from tests.cluster.replicas import ClusterStage, Replica
from tests.system.faults import Stall
from tests.system.program import run_ncps
from tests.waiting import free_port, wait_until

SIZE = 24 * 1024 * 1024
MIDDLE = SIZE // 2


class Agreeing(ClusterStage):
    """One key, one schema and one store, on every database."""

    def said(self, replica: Replica, pattern: str) -> list[str]:
        """Return the replica's log lines of this form."""
        return re.findall(pattern, replica.log)

    def test_ten_start_on_nothing(self) -> None:
        """Of ten that start together one makes the schema, one the key, and one the cluster."""
        replicas = self.make_replicas(10, self.mounted().url)
        self.at_once(*(lambda r=r: r.start(deadline=180.0) for r in replicas))
        self.assertEqual(1, len({replica.public_key() for replica in replicas}))
        clusters = [self.said(replica, r'"cluster": "([^"]+)"') for replica in replicas]
        self.assertEqual([1] * 10, [len(names) for names in clusters])
        self.assertEqual(1, len({name for (name,) in clusters}))
        applied = [int(n) for r in replicas for n in self.said(r, r"applied migration (\d+)")]
        rows = self.backends.database.execute(
            "SELECT version FROM schema_migrations", self.database_name
        )
        self.assertEqual(sorted(version for (version,) in rows), sorted(applied))

    def test_replicas_that_cannot_reach_each_other(self) -> None:
        """Each waits until the catalog has the NAR that another one fetches, and serves it."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Stall(MIDDLE))
        options = [
            *("--cache-upstream-idle-timeout", "60s"),
            *("--cluster-advertise-url", f"http://127.0.0.1:{free_port()}"),
        ]
        first, second = self.replicas(2, origin.url, options=options)
        leader = self.readers([first], path, 1)
        origin.wait_for_stall(path.nar_target)
        followers = self.readers([second], path, 3)
        wait_until(
            lambda: self.metric(second, "ncps_downloads_in_flight") == 1,
            "the second replica to wait",
            daemon=second,
        )
        self.assertEqual({0}, {reader.position for reader in followers})
        origin.release()
        self.assert_all_read(leader + followers)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.assertEqual(0, self.metric(second, "ncps_relayed_bytes_total"))

    def test_all_forget_a_nar_that_one_finds_lost(self) -> None:
        """When a NAR is gone, no replica answers its narinfo from memory any more."""
        paths = [self.cache.add(100_000) for _ in range(3)]
        origin = self.mounted()
        first, *others = self.replicas(3, origin.url)
        for path in paths:
            self.assert_served(first, path)
            for replica in (first, *others):
                self.assert_hit(replica, path)
        lost, *kept = paths
        self.lose(self.nar_target(first, lost))
        for target in (f"/{lost.digest}.narinfo", lost.nar_target):
            origin.withdraw(target)
        self.assertEqual(404, self.nar(first, lost).status)
        for replica in others:
            wait_until(
                lambda: self.narinfo(replica, lost).status == 404,  # noqa: B023
                "the word to spread",
                deadline=10.0,
                daemon=replica,
            )
            for path in kept:
                self.assert_served(replica, path)

    def lose(self, target: str) -> None:
        """Remove a NAR from the bucket without the replicas."""
        (key,) = [key for key in self.objects() if key.endswith(target.rpartition("/")[2])]
        self.backends.s3.request("DELETE", f"/{self.bucket}/{key}")

    def objects(self) -> dict[str, int]:
        """Return the sizes of the NARs in the bucket by key."""
        return self.backends.s3.sizes(self.bucket, "store/nar/")

    def rows(self) -> dict[str, int]:
        """Return the sizes of the stored NARs in the database by file name."""
        rows = self.backends.database.execute(
            "SELECT name, extension, stored_size FROM nar_files WHERE stored_at IS NOT NULL",
            self.database_name,
        )
        return {f"{name}.nar{extension and '.'}{extension}": size for name, extension, size in rows}

    def test_one_at_a_time_keeps_the_store_small(self) -> None:
        """While all store, rows, bytes and counters agree, and nothing is removed twice."""
        paths = [self.cache.add(100_000, compression="none") for _ in range(60)]
        replicas = self.replicas(
            3,
            self.mounted().url,
            options=["--cache-max-size", "2M", *("--cache-lru-grace", "1ms")],
        )

        def install(replica: Replica, number: int) -> None:
            for path in paths[number::3]:
                self.assert_served(replica, path)

        self.at_once(*(lambda r=r, n=n: install(r, n) for n, r in enumerate(replicas)))

        total = sum(len(path.file) for path in paths)
        names = ("ncps_lru_nar_files_evicted_total", "ncps_lru_bytes_freed_total")

        def is_settled() -> bool:
            rows = self.rows()
            if sum(rows.values()) > 2 * 1024 * 1024:
                return False
            objects = {key.rpartition("/")[2]: size for key, size in self.objects().items()}
            size = sum(objects.values())
            # A run is counted at its end.
            counted = [sum(self.metric(r, name) for r in replicas) for name in names]
            return (
                size <= 2 * 1024 * 1024
                and objects == rows
                and counted == [len(paths) - len(rows), total - size]
            )

        wait_until(is_settled, "a small store", deadline=60.0, daemon=replicas[0])
        rows = self.rows()
        self.assertGreater(len(rows), 5)
        ((count, size),) = self.backends.database.execute(
            "SELECT nars, bytes FROM accounts WHERE name = 'stored'", self.database_name
        )
        self.assertEqual((len(rows), sum(rows.values())), (count, size))
        for path in paths[:9]:
            self.assert_served(replicas[path.digest < "8"], path)

    def test_calls_of_the_database_are_timed(self) -> None:
        """Each kind of call is counted with its time."""
        path = self.cache.add(1000)
        (replica,) = self.replicas(1, self.mounted().url)
        name = "ncps_database_call_duration_seconds"
        counts = [f'{name}_count{{kind="{kind}"}}' for kind in ("point", "read", "write")]
        before = [self.metric(replica, count) for count in counts]
        self.assert_served(replica, path)
        self.assert_hit(replica, path)
        for was, count in zip(before, counts, strict=True):
            wait_until(
                lambda: self.metric(replica, count) > was,  # noqa: B023
                f"more than {was} of {count}",
                daemon=replica,
            )
        self.assertGreater(self.metric(replica, f"{name}_sum"), 0)

    def test_lost_database_is_rebuilt_from_the_bucket(self) -> None:
        """With a new database all paths are served again, without upstreams, by the same key."""
        paths = [self.cache.add(size) for size in (SIZE, 5000, 2000)]
        origin = self.mounted()
        first, second = self.replicas(2, origin.url)
        key = first.public_key()
        for path in paths:
            self.assert_served(first, path)
            self.assert_hit(second, path)
        first.stop()
        second.stop()
        origin.stop()
        self.share("--cache-database-url", self.backends.database.new_database())
        first, second = self.make_replicas(2, origin.url)
        done = run_ncps(first, "rebuild")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("3 narinfos and 3 NARs recorded", done.stdout)
        for replica in (first, second):
            replica.start()
            self.assertEqual(key, replica.public_key())
            for path in paths:
                self.assertEqual("hit", self.assert_served(replica, path).outcome)
