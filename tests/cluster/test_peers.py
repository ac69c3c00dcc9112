"""Replicas stream to each other, and give nothing to foreign servers at their addresses."""

from __future__ import annotations

from tests.cluster.replicas import ClusterStage
from tests.system.faults import Redirect, Stall
from tests.waiting import wait_until

SIZE, MIDDLE = 6 * 1024 * 1024, 3 * 1024 * 1024
PATIENT = ("--cache-upstream-idle-timeout", "60s")


class PeerTests(ClusterStage):
    def test_clocks_that_are_far_apart(self) -> None:
        """NARs are streamed between the replicas in both directions."""
        origin = self.origin()
        right, wrong = self.make_replicas(2, origin.url, options=PATIENT)
        wrong.clock_ahead_s = 600  # S3 accepts at most 900
        self.at_once(right.start, wrong.start)
        for first, second in ((right, wrong), (wrong, right)):
            path = self.cache.add(SIZE, compression="none")
            self.cache.mount_path(origin, path, "", Stall(MIDDLE))
            leader = self.readers([first], path, 1)
            origin.wait_for_stall(path.nar_target)
            follower = self.readers([second], path, 1)
            wait_until(
                lambda: follower[0].position >= MIDDLE - 1024 * 1024,  # noqa: B023
                "bytes at the second replica",
                daemon=second,
            )
            origin.release()
            self.assert_all_read(leader + follower)
            self.assertEqual(1, origin.gets(path.nar_target))
            origin.hold()

    def test_another_server_at_an_address(self) -> None:
        """A foreign server gets no secret, redirects no replica, and only costs time."""
        path = self.cache.add(SIZE, compression="none")
        origin, stranger, elsewhere = self.mounted(Stall(MIDDLE)), self.origin(), self.origin()
        target = f"/cluster{path.nar_target}"
        stranger.serve(target, b"", Redirect(elsewhere.url + target))
        (holder,) = self.replicas(
            1, origin.url, options=[*PATIENT, "--cluster-advertise-url", stranger.url]
        )
        (other,) = self.replicas(1, origin.url, options=PATIENT)
        leader = self.readers([holder], path, 1)
        origin.wait_for_stall(path.nar_target)
        follower = self.readers([other], path, 1)
        stranger.wait_for(lambda: stranger.log)
        origin.release()
        self.assert_all_read(leader + follower)
        self.assertEqual([], elsewhere.log)
        secret = self.setting("--cluster-secret")
        for visit in stranger.log:
            self.assertNotIn(secret, str(visit.request))
            self.assertIn(stranger.url, visit.request.headers["authorization"])

    def test_another_secret(self) -> None:
        """Nothing is streamed, and all paths are served after a while."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted(Stall(MIDDLE))
        (holder,) = self.replicas(1, origin.url, options=PATIENT)
        self.share("--cluster-secret", "another secret of 16 and more")
        (other,) = self.replicas(1, origin.url, options=PATIENT)
        leader = self.readers([holder], path, 1)
        origin.wait_for_stall(path.nar_target)
        follower = self.readers([other], path, 1)
        self.wait_for_log(holder, "/cluster/nar/", '"status": 401')
        self.assertEqual(0, follower[0].position)
        origin.release()
        self.assert_all_read(leader + follower)
        self.assertEqual(1, origin.gets(path.nar_target))
