"""Real Nix clients before two replicas and a load balancer that alternates between them."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.balancer import Balancer
from tests.cluster.replicas import ClusterStage, Replica
from tests.e2e.bench import shared_cache, shared_closure
from tests.e2e.daemon import UpstreamCache
from tests.e2e.fileserver import FileServer
from tests.e2e.nixclient import NixClient, release


class NixTests(ClusterStage):
    """A closure, cold and warm."""

    def upstream(self) -> FileServer:
        """Return a started upstream with the closure."""
        server = FileServer(shared_cache("zstd").directory)
        server.start()
        self.addCleanup(server.stop)
        return server

    def pair(self, server: FileServer) -> tuple[list[Replica], Balancer]:
        """Return two started replicas and the load balancer."""
        made = [
            Replica(
                self.directory / f"ncps{number}",
                [UpstreamCache(server.url, shared_closure().public_key)],
                shared=self.shared,
            )
            for number in range(2)
        ]
        for replica in made:
            self.addCleanup(self.check_log, replica)
            self.addCleanup(replica.kill)
            replica.start()
        balancer = self.balancer(made)
        return made, balancer

    def install(self, name: str, directory: Path, url: str, key: str) -> None:
        """Install the closure with a new client, and check all of it."""
        closure = shared_closure()
        client = NixClient(release(name), directory)
        client.install(url, [key], closure.root)
        client.verify([key], closure.root)
        self.assertEqual(closure.fingerprint(closure.client), closure.fingerprint(client))

    def arrives(self, name: str) -> None:
        server = self.upstream()
        replicas, balancer = self.pair(server)
        key = replicas[0].public_key()
        self.assertEqual(key, replicas[1].public_key())
        self.install(name, self.directory / "cold", balancer.url, key)
        self.assertEqual({}, server.repeated())
        server.stop()
        self.install(name, self.directory / "warm", balancer.url, key)
        replicas[0].kill()
        self.install(name, self.directory / "one", balancer.url, key)

    def test_old_client(self) -> None:
        """Debian's Nix 2.8: cold, without the upstream, and with one replica killed."""
        self.arrives("system")

    def test_recent_client(self) -> None:
        """Nix 2.26: cold, without the upstream, and with one replica killed."""
        self.arrives("trixie")
