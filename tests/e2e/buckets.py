"""Every stock Nix client installs from a bucket; test_bucket has the clients."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.bench import Bench, served, shared_cache, shared_closure
from tests.e2e.bucket import BucketDaemon
from tests.e2e.daemon import UpstreamCache
from tests.integration.servers import shared

SMALL = 100_000  # bytes; the closure has smaller and larger NARs


class Buckets(Bench):
    """Tests for every client."""

    def bucket_daemon(self, *options: str) -> BucketDaemon:
        """Return a started ncps on a new bucket, over an upstream with the shared closure."""
        self.upstream = self.file_server("zstd")
        server = shared.radosgw()
        daemon = BucketDaemon(
            self.fresh_directory("ncps"),
            [UpstreamCache(self.upstream.url, shared_closure().public_key)],
            server=server,
            bucket=server.new_bucket(),
            options=options,
        )
        daemon.is_forked = True
        self.addCleanup(daemon.kill)
        daemon.start()
        return daemon

    def requests(self, daemon: BucketDaemon, status: int) -> list[dict[str, Any]]:
        """Return the log's lines about requests with this outcome."""
        lines = [json.loads(line) for line in daemon.log.splitlines()]
        return [line for line in lines if line.get("status") == status]

    def test_closure_arrives_cold_and_again_from_the_bucket(self) -> None:
        """Without the upstream every NAR comes from the bucket, also after a restart."""
        daemon = self.bucket_daemon()
        self.install(daemon)
        self.assertEqual({}, self.upstream.repeated())
        daemon.stop()
        self.upstream.stop()
        daemon.start()
        self.install(daemon)
        self.assertEqual([], self.requests(daemon, 307))
        daemon.stop()

    def test_client_follows_a_redirect_into_the_bucket(self) -> None:
        """A large NAR comes from the S3 server itself, small ones through ncps."""
        daemon = self.bucket_daemon(
            "--cache-storage-s3-redirect", "--cache-storage-s3-redirect-min-size", f"{SMALL}B"
        )
        self.install(daemon)
        daemon.stop()
        self.upstream.stop()
        daemon.start()
        self.install(daemon)
        client = self.client()
        client.copy(daemon.url, [daemon.public_key()], shared_closure().root)
        self.check(client, daemon)
        large = served("zstd")[shared_cache("zstd").large]
        redirected = [line["path"] for line in self.requests(daemon, 307)]
        self.assertEqual(redirected.count(large), 2, redirected)
        daemon.stop()
