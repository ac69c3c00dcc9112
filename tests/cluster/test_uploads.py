"""A Nix client uploads through nginx to two replicas, with alternating requests."""

from __future__ import annotations

from tests.cluster.replicas import ClusterStage, Replica
from tests.e2e.closure import make_closure
from tests.e2e.daemon import UpstreamCache
from tests.e2e.nixclient import NixClient, release
from tests.waiting import free_port

LARGE = 3_000_000
"""Bytes of a path: more than nginx accepts by default."""


class UploadTests(ClusterStage):
    def test_closure_through_a_balancer(self) -> None:
        """It can be installed immediately through the balancer, and from each replica alone."""
        nobody = UpstreamCache(f"http://127.0.0.1:{free_port()}", f"nobody.test-1:{'A' * 43}=")
        replicas = [
            Replica(
                self.directory / f"ncps{number}",
                [nobody],
                shared=self.shared,
                options=("--cache-allow-put-verb",),
            )
            for number in range(2)
        ]
        for replica in replicas:
            self.addCleanup(self.check_log, replica)
            self.addCleanup(replica.kill)
            replica.start()
        balancer, key = self.balancer(replicas), replicas[0].public_key()
        maker = NixClient(release("trixie"), self.directory / "maker")
        closure = make_closure(maker, self.directory / "sources", small=4, large=[LARGE])
        target = f"{balancer.url}/upload?compression=zstd"
        for _ in range(2):
            maker.run("nix", "copy", "--from", str(maker.store), "--to", target, closure.root)
        for name, url in (
            ("both", balancer.url),
            ("first", replicas[0].url),
            ("second", replicas[1].url),
        ):
            client = NixClient(maker.release, self.directory / name)
            client.install(url, [key], closure.root)
            client.verify([key], closure.root)
            self.assertEqual(closure.fingerprint(maker), closure.fingerprint(client))
