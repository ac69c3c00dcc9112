"""The part of the limits for one of several workers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.settings.around import load_with


class ShareTests(SynchronousTestCase):
    def test_limits_of_the_whole_are_divided(self) -> None:
        """Results are rounded up, so that no limit becomes 0."""
        settings = load_with(
            {
                "workers": "3",
                "server-max-connections": "10",
                "server-max-requests": "1",
                "cache-narinfo-memory-size": "3M",
                "cache-download-max-spool-size": "9G",
                "cache-upstream-max-connections": "32",
                "cache-database-pool-max-open-conns": "20",
            }
        ).share()
        self.assertEqual(4, settings.server.max_connections)
        self.assertEqual(1, settings.server.max_requests)
        self.assertEqual(1 << 20, settings.cache.narinfo_memory_size_bytes)
        self.assertEqual(3 << 30, settings.cache.download.max_spool_size_bytes)
        self.assertEqual(11, settings.cache.upstream.max_connections)
        self.assertEqual(7, settings.cache.database.pool.max_open_conns)

    def test_limits_of_single_things_stay(self) -> None:
        """Limits of single requests and files are the same in every worker."""
        whole = load_with({"workers": "4"})
        part = whole.share()
        self.assertEqual(whole.server.max_header_size_bytes, part.server.max_header_size_bytes)
        self.assertEqual(whole.cache.narinfo_max_size_bytes, part.cache.narinfo_max_size_bytes)
        self.assertEqual(whole.cache.storage, part.cache.storage)

    def test_no_limit_stays_none(self) -> None:
        """0 means no limit, for all together and for each worker."""
        settings = load_with({"workers": "4", "server-max-connections-per-address": "0"}).share()
        self.assertEqual(0, settings.server.max_connections_per_address)

    def test_one_worker_has_all(self) -> None:
        """For a single worker, nothing is divided."""
        self.assertEqual(load_with(), load_with().share())
