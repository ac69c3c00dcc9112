"""The access to a bucket, as the settings define it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.bucket import access
from ncps.storage.s3.bucket import connect
from tests.unit.settings.around import load_with


class ProxyTests(SynchronousTestCase):
    def test_endpoint_on_this_machine(self) -> None:
        """It never has a proxy; others have the one that AWS's own tools would use."""
        for endpoint, proxies in (
            ("http://127.0.0.1:9000", {}),
            ("http://localhost:9000", {}),
            ("https://s3.example.org", None),
            ("http://minio-1:9000", None),
            ("http://[2001:db8::1]:9000", None),
            ("", None),
        ):
            settings = load_with(
                {
                    "cache-storage-s3-bucket": "nix",
                    "cache-storage-s3-endpoint": endpoint,
                    "cache-storage-s3-access-key-id": "a",
                    "cache-storage-s3-secret-access-key": "b",
                }
            )
            client = connect(access(settings.cache.storage.s3))
            self.assertEqual(proxies, client.meta.config.proxies)
            client.close()
