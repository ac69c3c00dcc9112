"""The modules that are imported before the fork of workers; `integration` has the forks."""

from __future__ import annotations

from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from ncps.process.nursery import NoNursery, Nursery, adapters_of
from tests.structure.test_start import OF_A_CONFIGURATION
from tests.unit.settings.around import load_with

SERVERS = {
    "cache-database-url": "postgresql://ncps@db/ncps",
    "cache-lock-backend": "redis",
    "cache-redis-addrs": "redis:6379",
    "cache-storage-s3-bucket": "nar",
    "cache-storage-s3-endpoint": "https://s3.example.org",
    "cache-storage-s3-access-key-id": "id",
    "cache-storage-s3-secret-access-key": "secret",
}


class AdaptersTests(SynchronousTestCase):
    def test_a_plain_daemon_has_none(self) -> None:
        """With a directory and SQLite no further module is needed."""
        self.assertEqual([], adapters_of(load_with()))

    def test_each_setting_names_its_own(self) -> None:
        """The modules exist, and a plain daemon does not import them."""
        found = adapters_of(load_with(SERVERS))
        self.assertEqual(4, len(found), found)
        found += adapters_of(load_with({**SERVERS, "cache-database-url": "mysql://ncps@db/ncps"}))
        self.assertEqual([], sorted(set(found) - set(OF_A_CONFIGURATION) - ALSO))
        for name in found:
            import_module(name)


ALSO = {"ncps.assembly.database_servers", "ncps.assembly.lease_backends"}


class NoNurseryTests(SynchronousTestCase):
    def test_without_a_nursery_workers_are_programs(self) -> None:
        """Without a nursery each fork raises NoNursery, and `close` does nothing."""
        nursery = Nursery()
        nursery.close()
        self.assertRaises(NoNursery, nursery.fork, "plan", [0, 1, 2])
