"""Tests of the settings of locks and of Redis."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.redis import RedisEndpoint, parse_redis_address
from tests.unit.settings.around import load_with, problems_of

DATABASE = {"cache-database-url": "postgresql://ncps@db/ncps"}


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Names and both kinds of IP addresses are valid, with a port or without."""
        for text, host, port, shown in (
            ("redis", "redis", 6379, "redis:6379"),
            ("redis.example.org:7000", "redis.example.org", 7000, "redis.example.org:7000"),
            ("192.0.2.1:1", "192.0.2.1", 1, "192.0.2.1:1"),
            ("[2001:db8::1]", "2001:db8::1", 6379, "[2001:db8::1]:6379"),
        ):
            found = parse_redis_address(text)
            self.assertEqual(found, RedisEndpoint(host, port))
            self.assertEqual(str(found), shown)
            self.assertEqual(parse_redis_address(shown), found)

    def test_invalid_addresses(self) -> None:
        """The error at the start says what is right."""
        for text in ("a:0", "a:65536", "a:b", "::1", "a b", "a:1:2", "unix:/x"):
            (problem,) = problems_of({"cache-redis-addrs": text})
            self.assertIn("should be HOST, HOST:PORT", problem)
            self.assertIn("a PORT from 1 to 65535", problem)

    def test_a_url(self) -> None:
        """The parts of a URL have settings of their own; the error does not repeat its password."""
        (problem,) = problems_of({"cache-redis-addrs": "rediss://me:hunter2@redis:1/2"})
        self.assertIn("settings of their own", problem)
        self.assertNotIn("hunter2", problem)


class LockSettingsTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """One process needs no settings; a dead holder blocks others for seconds only."""
        cache = load_with().cache
        self.assertEqual((cache.lock.backend, cache.redis.addrs), ("local", ()))
        self.assertEqual((cache.lock.download_lock_ttl_s, cache.lock.lru_lock_ttl_s), (15.0, 15.0))

    def test_long_times_are_cut(self) -> None:
        """The minutes in existing configurations would block others for minutes."""
        redis = {"cache-redis-addrs": "redis", "cache-lock-backend": "redis", **DATABASE}
        long = {"cache-lock-download-ttl": "5m0s", "cache-lock-lru-ttl": "30m"}
        found = load_with({**redis, **long})
        lock = found.cache.lock
        self.assertEqual((lock.download_lock_ttl_s, lock.lru_lock_ttl_s), (30.0, 30.0))
        (warning,) = found.warnings
        self.assertIn(
            "cache-lock-download-ttl 5m and cache-lock-lru-ttl 30m are shortened to", warning
        )
        self.assertIn("30s", warning)
        found = load_with({**redis, "cache-lock-download-ttl": "30s"})
        self.assertEqual((found.cache.lock.download_lock_ttl_s, found.warnings), (30.0, ()))

    def test_long_times_without_others(self) -> None:
        """Locks on one machine are free when their holder dies, so no warning comes."""
        self.assertEqual(load_with({"cache-lock-download-ttl": "5m"}).warnings, ())

    def test_long_times_for_a_slow_redis(self) -> None:
        """The longest time leaves room for slow answers of Redis."""
        redis = {"cache-redis-addrs": "redis", "cache-lock-backend": "redis", **DATABASE}
        for ttl in ("1m", "5m"):
            more = {"cache-redis-timeout": "20s", "cache-lock-download-ttl": ttl}
            found = load_with({**redis, **more, "cache-lock-lru-ttl": "1m"})
            self.assertEqual(found.cache.lock.download_lock_ttl_s, 60.0)

    def test_an_address_is_enough(self) -> None:
        """As in the Go program, an address means that Redis is used, with a warning."""
        for more in ({}, {"cache-lock-backend": "local"}):
            found = load_with({"cache-redis-addrs": "redis", **DATABASE, **more})
            self.assertEqual(found.cache.lock.backend, "redis")
            self.assertEqual(len(found.warnings), 1)
        found = load_with({"cache-redis-addrs": "redis", "cache-lock-backend": "redis", **DATABASE})
        self.assertEqual(found.warnings, ())

    def test_redis_beside_sqlite(self) -> None:
        """This suggests several machines, each with its own database, so it causes a warning."""
        (warning,) = load_with(
            {"cache-redis-addrs": "redis", "cache-lock-backend": "redis"}
        ).warnings
        for word in ("SQLite", "cache-database-url", "PostgreSQL or MySQL"):
            self.assertIn(word, warning)

    def test_secrets_do_not_show(self) -> None:
        """The `repr` of the settings shows neither password."""
        found = load_with(
            {"cache-redis-password": "hunter2", "cache-redis-sentinel-password": "hunter2"}
        )
        self.assertEqual(found.cache.redis.password, "hunter2")
        self.assertNotIn("hunter2", repr(found))

    def test_settings_that_do_not_fit(self) -> None:
        """Each mistake is one error at the start that names its setting."""
        redis = {"cache-redis-addrs": "redis", "cache-lock-backend": "redis"}
        for flags, expected in (
            ({"cache-lock-backend": "redis"}, "cache-redis-addrs: cache-lock-backend redis needs"),
            (
                {**redis, "cache-redis-addrs": "a,b,a:6379"},
                "cache-redis-addrs: a:6379 should be there once",
            ),
            ({**redis, "cache-redis-tls-ca-file": "/x"}, "cache-redis-use-tls: should be true"),
            (
                {**redis, "cache-redis-use-tls": "true", "cache-redis-tls-key-file": "/x"},
                "go together",
            ),
            ({**redis, "cache-lock-download-ttl": "5s"}, "cache-lock-download-ttl: should be at"),
            ({**redis, "cache-lock-lru-ttl": "5s"}, "at least 6s"),
            ({"cache-lock-retry-initial-delay": "1s"}, "cache-lock-retry-max-delay"),
            ({"cache-lock-backend": "postgresql"}, "cache-database-url of PostgreSQL"),
            ({"cache-lock-backend": "postgres"}, "did you mean postgresql?"),
        ):
            problems = problems_of(flags)
            self.assertEqual(len(problems), 1, (flags, problems))
            self.assertIn(expected, problems[0])

    def test_postgresql(self) -> None:
        """The database of the catalog also keeps the locks; addresses of Redis have no effect."""
        found = load_with(
            {
                "cache-lock-backend": "postgresql",
                "cache-database-url": "postgresql://ncps@db/ncps",
                "cache-redis-addrs": "redis",
            }
        )
        self.assertEqual(found.cache.lock.backend, "postgresql")
        self.assertEqual(len(found.warnings), 1)

    def test_several_servers(self) -> None:
        """A majority of them keeps the locks; an even number causes a warning."""
        redis = {"cache-lock-backend": "redis", **DATABASE}
        found = load_with({**redis, "cache-redis-addrs": "a,b,[2001:db8::1]:7000"})
        self.assertEqual(["a", "b", "2001:db8::1"], [a.host for a in found.cache.redis.addrs])
        self.assertEqual((), found.warnings)
        for addrs, needed in (("a,b", "locks need 2"), ("a,b,c,d", "locks need 3")):
            (warning,) = load_with({**redis, "cache-redis-addrs": addrs}).warnings
            self.assertIn(needed, warning)
            self.assertIn("give an odd number", warning)

    def test_sentinels(self) -> None:
        """With the server's name, several addresses are those of Sentinels."""
        found = load_with(
            {
                "cache-redis-addrs": "a:26379,b:26379",
                "cache-lock-backend": "redis",
                "cache-redis-sentinel-master": "mymaster",
            }
        )
        self.assertEqual([address.host for address in found.cache.redis.addrs], ["a", "b"])
        self.assertNotIn("odd", str(found.warnings))
