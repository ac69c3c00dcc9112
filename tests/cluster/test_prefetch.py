"""Replicas that fetch ahead."""

from __future__ import annotations

from functools import partial

from tests.cluster.replicas import ClusterStage
from tests.system.test_prefetch import Closures


class PrefetchTests(Closures, ClusterStage):
    def test_two_replicas_fetch_each_object_once(self) -> None:
        """Clients of both replicas walk a closure at the same time."""
        paths = self.closure()
        origin = self.mounted()
        replicas = self.replicas(2, origin.url, options=["--cache-prefetch", "small"])
        self.at_once(*[partial(self.walk, replica, paths) for replica in replicas * 4])
        self.assert_once(origin, paths)
        fetched = [self.metric(replica, "ncps_prefetched_total") for replica in replicas]
        self.assertLess(sum(fetched), 2 * len(paths), "without the narinfo of the root")
