"""Every stock Nix client uploads closures, which others install.

test_upload_closures has the clients.
"""

from __future__ import annotations

from tests.e2e.bench import Bench
from tests.e2e.bucket import BucketDaemon
from tests.e2e.closure import Closure, make_closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.fileserver import FileServer
from tests.integration.servers import shared
from tests.waiting import free_port

WRITE = ("--cache-allow-put-verb",)
"""Every client may upload."""

VARIANTS = (
    "compression=none",
    "compression=xz&compression-level=1&write-nar-listing=1",
    "compression=zstd&index-debug-info=true",
)


class UploadClosures(Bench):
    """Tests for every client."""

    def closures(self) -> list[Closure]:
        """Make a small closure for each variant, each with paths of its own."""
        return [
            make_closure(
                self.client(), self.fresh_directory("sources"), seed=seed, small=6, large=[300_000]
            )
            for seed in range(len(VARIANTS))
        ]

    def upload(self, closure: Closure, url: str, variant: str) -> None:
        """Send a closure with `nix copy --to`."""
        client = closure.client
        target = f"{url}/upload?{variant}"
        client.run("nix", "copy", "--from", str(client.store), "--to", target, closure.root)

    def check_installed(self, closure: Closure, daemon: Daemon) -> None:
        """Install a closure with a fresh client and check all of it."""
        client, key = self.client(), daemon.public_key()
        client.install(daemon.url, [key], closure.root)
        client.verify([key], closure.root)
        self.assertEqual(closure.fingerprint(closure.client), closure.fingerprint(client))

    def roundtrip(self, daemon: Daemon) -> None:
        """Upload each closure twice, install it, and once more after a restart."""
        closures = self.closures()
        for closure, variant in zip(closures, VARIANTS, strict=True):
            for _ in range(2):
                self.upload(closure, daemon.url, variant)
            self.check_installed(closure, daemon)
        daemon.stop()
        daemon.start()
        for closure in closures:
            self.check_installed(closure, daemon)
        daemon.stop()

    def away(self) -> UpstreamCache:
        """Return an upstream without a listener."""
        return UpstreamCache(f"http://127.0.0.1:{free_port()}", f"nobody.test-1:{'A' * 43}=")

    def test_uploaded_closures_install_while_the_upstream_is_away(self) -> None:
        """Uncompressed, xz with listings, and zstd with an index of debug information."""
        daemon = Daemon(self.fresh_directory("ncps"), [self.away()], options=WRITE)
        self.addCleanup(daemon.kill)
        daemon.start()
        self.roundtrip(daemon)

    def test_an_upload_asks_no_upstream(self) -> None:
        """Before an upload ncps looks for paths only in its store."""
        empty = self.fresh_directory("empty")
        empty.mkdir()
        server = FileServer(empty)
        server.start()
        self.addCleanup(server.stop)
        daemon = self.daemon(server, public_key=f"nobody.test-1:{'A' * 43}=", options=WRITE)
        closure = self.closures()[0]
        self.upload(closure, daemon.url, VARIANTS[0])
        asked = [target for target in server.get_counts() if target != "/nix-cache-info"]
        self.assertEqual([], asked)

    def test_uploaded_closures_install_from_a_bucket(self) -> None:
        """The same in S3."""
        server = shared.radosgw()
        daemon = BucketDaemon(
            self.fresh_directory("ncps"),
            [self.away()],
            server=server,
            bucket=server.new_bucket(),
            options=WRITE,
        )
        self.addCleanup(daemon.kill)
        daemon.start()
        self.roundtrip(daemon)
