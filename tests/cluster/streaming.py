"""One fetch for all replicas."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.cluster.replicas import LEASE_S, ClusterStage, Replica
from tests.system.caches import StorePath
from tests.system.faults import Only, Stall
from tests.waiting import wait_until

SIZE = 24 * 1024 * 1024
MIDDLE = SIZE // 2


class Killing(ClusterStage):
    """A holder of a lease that dies."""

    def holder_dies(self, count: int, *, size: int, clients: int) -> None:
        """Kill one of `count` replicas at half of a NAR; a quarter of the clients ask it first."""
        path = self.cache.add(size, compression="none")
        middle = size // 2
        origin = self.mounted(Only(Stall(middle), 1))
        replicas = self.replicas(
            count, origin.url, options=["--cache-upstream-idle-timeout", "120s"]
        )
        holder, *others = replicas
        at_holder = self.readers(replicas, path, clients // 4, first=holder)
        origin.wait_for_stall(path.nar_target)
        elsewhere = self.readers(others, path, clients - clients // 4)
        wait_until(
            lambda: min(reader.position for reader in elsewhere) >= middle - 1024 * 1024,
            "bytes at the other replicas",
            deadline=100.0,
            daemon=others[0],
        )
        holder.kill()
        self.assert_all_read(at_holder + elsewhere)
        self.assertEqual({0}, {reader.cuts for reader in elsewhere}, "these notice a pause at most")
        visits = origin.visits(path.nar_target)
        self.assertLessEqual(len(visits), 2)
        self.assertIsNotNone(visits[1].request.range, "from the byte it had")
        for replica in others:
            self.assert_hit(replica, path)
        holder.start()
        self.assert_hit(holder, path)


LARGE = 32 * 1024 * 1024


class Crowd(ClusterStage):
    """A hundred clients at the same time.

    :cvar large: size of the NAR in bytes; `tests.long` has larger ones.
    """

    large = LARGE

    def one_fetch_for_all(self, count: int) -> None:
        """Let a hundred clients ask `count` replicas for a large cold NAR."""
        path = self.cache.add(self.large, compression="none")
        origin = self.mounted()
        replicas = self.replicas(count, origin.url)
        readers = self.readers(replicas, path, 100)
        self.assert_all_read(readers)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.assertEqual([0], sorted({reader.cuts for reader in readers}))
        for replica in replicas:
            self.assert_hit(replica, path)
        self.assertEqual(1, origin.gets(path.nar_target))


class CrowdOfThree(Crowd):
    def test_hundred_clients_one_fetch(self) -> None:
        """A hundred clients of three replicas get a large cold NAR from one upstream transfer."""
        self.one_fetch_for_all(3)


class CrowdOfTwo(Crowd):
    def test_hundred_clients_of_two_replicas(self) -> None:
        """A hundred clients of two replicas do as well."""
        self.one_fetch_for_all(2)


class CrowdBereft(Killing):
    large = LARGE

    def test_holder_of_a_large_nar_is_killed(self) -> None:
        """The same with a hundred clients of two replicas, of which one remains."""
        self.holder_dies(2, size=self.large, clients=100)


class Streaming(Killing):
    """Replicas stream to their clients what another one fetches, on every database."""

    def test_second_replica_streams_what_the_first_is_fetching(self) -> None:
        """Bytes flow to clients of another replica while they arrive at the first one."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Stall(MIDDLE))
        first, second = self.replicas(
            2, origin.url, options=["--cache-upstream-idle-timeout", "60s"]
        )
        leader = self.readers([first], path, 1)
        origin.wait_for_stall(path.nar_target)
        follower = self.readers([second], path, 2)
        wait_until(
            lambda: min(reader.position for reader in follower) >= MIDDLE - 1024 * 1024,
            "bytes at the second replica",
            daemon=second,
        )
        # A client may resume at the second replica a NAR that the first one still fetches.
        part = self.exchange(second, self.nar_target(second, path), Range="bytes=1000-")
        self.assertEqual((206, path.file[1000:5000]), (part.status, part.read(4000)))
        origin.release()
        self.assert_all_read(leader + follower)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.assertGreaterEqual(self.metric(second, "ncps_relayed_bytes_total"), SIZE)

    def test_holder_is_killed_in_the_middle(self) -> None:
        """After SIGKILL of the fetching replica another one continues at the next byte."""
        self.holder_dies(3, size=SIZE, clients=12)

    def test_holder_is_killed_before_the_first_byte(self) -> None:
        """After SIGKILL before an answer, the others ask the upstream when the lease is free."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Only(Stall(0), 1))
        holder, other = self.replicas(2, origin.url)
        at_holder = self.readers([holder, other], path, 1, first=holder)
        origin.wait_for_stall(path.nar_target)
        elsewhere = self.readers([other], path, 2)
        holder.kill()
        self.assert_all_read(at_holder + elsewhere)
        self.assertLessEqual(origin.gets(path.nar_target), 3)

    def test_holder_that_sleeps_past_its_lease(self) -> None:
        """A holder that was stopped for longer than its lease damages nothing afterwards."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Only(Stall(MIDDLE), 1))
        holder, *others = self.replicas(
            3, origin.url, options=["--cache-upstream-idle-timeout", "60s"]
        )
        at_holder = self.readers([holder], path, 2)
        origin.wait_for_stall(path.nar_target)
        elsewhere = self.readers(others, path, 4)
        wait_until(
            lambda: min(reader.position for reader in elsewhere) >= MIDDLE - 1024 * 1024,
            "bytes at the other replicas",
            daemon=others[0],
        )
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            self.assert_all_read(elsewhere)
            self.assert_hit(others[0], path)
            before = self.stored_under(path)
        finally:
            os.kill(holder.pid, signal.SIGCONT)
        origin.release()
        self.assert_all_read(at_holder)
        self.assertLessEqual(origin.gets(path.nar_target), 2)
        self.assertEqual({0}, {reader.cuts for reader in elsewhere})
        wait_until(
            lambda: self.metric(holder, "ncps_downloads_in_flight") == 0,
            "the end of the holder's download",
            daemon=holder,
        )
        self.assertEqual(before, self.stored_under(path), "the successor's row stays")
        for replica in (holder, *others):
            self.assert_hit(replica, path)
            self.assert_served(replica, path)

    def stored_under(self, path: StorePath) -> tuple[Any, ...]:
        """Return the number of the lease under which a NAR was stored, and the time."""
        name = path.nar_target.rpartition("/")[2].partition(".")[0]
        (row,) = self.backends.database.execute(
            f"SELECT fence, stored_at FROM nar_files WHERE name = '{name}'",
            self.database_name,
        )
        self.assertGreater(row[0], 0)
        return tuple(row)

    def test_many_small_paths_once_each(self) -> None:
        """Each object is fetched once, though all replicas are asked at the same time."""
        paths = [self.cache.add(20_000) for _ in range(60)]
        origin = self.mounted()
        replicas = self.replicas(3, origin.url)

        def install(replica: Replica) -> list[bool]:
            return [self.nar(replica, path).body == path.file for path in paths]

        for found in self.at_once(*(lambda r=r: install(r) for r in replicas * 2)):
            self.assertEqual([True] * len(paths), found)
        counts = origin.get_counts()
        repeated = {target: n for target, n in counts.items() if n > 1 and "." in target}
        self.assertEqual({}, repeated)

    def test_a_closure_that_two_replicas_fetch_ahead(self) -> None:
        """Clients of both walk the same closure, and each object is fetched once."""
        leaves = [self.cache.add(2000, compression="zstd") for _ in range(6)]
        middle = [self.cache.add(2000, compression="zstd", references=leaves) for _ in range(3)]
        paths = [self.cache.add(2000, compression="zstd", references=middle), *middle, *leaves]
        origin = self.mounted()
        both = self.replicas(2, origin.url)

        def walk(replica: Replica) -> None:
            targets = [self.nar_target(replica, path) for path in paths]
            for path, target in reversed(list(zip(paths, targets, strict=True))):
                self.assertEqual(path.file, self.ask(replica, target).body)

        self.at_once(*[lambda replica=replica: walk(replica) for replica in both * 3])
        wanted = [target for p in paths for target in (p.nar_target, f"/{p.digest}.narinfo")]
        self.assertEqual([1] * len(wanted), [origin.gets(target) for target in wanted])

    def test_one_key_for_all(self) -> None:
        """Replicas that start on nothing at the same time sign with one key."""
        origin = self.mounted()
        replicas = self.replicas(4, origin.url)
        self.assertEqual(1, len({replica.public_key() for replica in replicas}))

    def test_absence_is_taken_back_everywhere(self) -> None:
        """When one replica has a path that was absent, all replicas find it."""
        path = self.cache.add(1000)
        origin = self.origin()
        first, second = self.replicas(2, origin.url, options=["--cache-negative-ttl", "1h"])
        self.assertEqual([404, 404], [self.narinfo(r, path).status for r in (first, second)])
        self.cache.mount(origin)
        first.kill()
        first.start()  # forgets the absence
        self.assertEqual(200, self.narinfo(first, path).status)
        wait_until(
            lambda: self.narinfo(second, path).status == 200, "the word to spread", daemon=second
        )

    def test_lease_ends_with_its_holder(self) -> None:
        """A replica that is asked to stop releases its leases immediately."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Only(Stall(MIDDLE), 1))
        first, second = self.replicas(
            2,
            origin.url,
            options=[
                *("--server-drain-timeout", "100ms"),
                *("--cache-upstream-idle-timeout", "60s"),
            ],
        )
        at_first = self.readers([first, second], path, 1, first=first)
        origin.wait_for_stall(path.nar_target)
        first.stop()
        self.assert_all_read(at_first)
        self.assertLessEqual(origin.gets(path.nar_target), 2)


assert LEASE_S < 10  # otherwise the tests above wait for longer than their clients do
