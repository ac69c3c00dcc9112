"""A load balancer with the configuration of docs/high-availability.md."""

from __future__ import annotations

from tests.cluster.replicas import ClusterStage
from tests.system.wire import ask
from tests.waiting import wait_until


class BalancerTests(ClusterStage):
    def test_misses_that_fail_take_nothing_from_hits(self) -> None:
        """While Redis is away hits are served, though many misses get 503."""
        stored = self.cache.add(50_000)
        cold = [self.cache.add(100) for _ in range(20)]
        replicas = self.replicas(2, self.mounted().url)
        for replica in replicas:
            self.assert_served(replica, stored)
            self.assert_hit(replica, stored)
        balancer = self.balancer(replicas)
        self.assertEqual(404, ask(balancer.port, "/cluster/nar/x").status)
        self.backends.redis.kill()
        try:
            for replica in replicas:
                wait_until(
                    lambda: self.ask(replica, "/readyz").json["parts"]["leases"] != "ok",  # noqa: B023
                    "Redis to be missed",
                    daemon=replica,
                )
            for path in cold:
                answer = ask(balancer.port, f"/{path.digest}.narinfo")
                self.assertEqual((503, True), (answer.status, "retry-after" in answer.headers))
                narinfo = ask(balancer.port, f"/{stored.digest}.narinfo")
                self.assertEqual(200, narinfo.status)
                nar = ask(balancer.port, "/" + narinfo.fields["URL"])
                self.assertEqual((200, stored.file), (nar.status, nar.body))
        finally:
            self.backends.redis.start()

    def test_one_replica_is_killed(self) -> None:
        """Its clients use the other one."""
        paths = [self.cache.add(1000) for _ in range(20)]
        replicas = self.replicas(2, self.mounted().url)
        balancer = self.balancer(replicas)
        for number, path in enumerate(paths):
            if number == 10:
                replicas[0].kill()
            narinfo = ask(balancer.port, f"/{path.digest}.narinfo")
            self.assertEqual(200, narinfo.status)
            nar = ask(balancer.port, "/" + narinfo.fields["URL"])
            self.assertEqual((200, path.file), (nar.status, nar.body))
