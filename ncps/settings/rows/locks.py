"""Settings of locks and of Redis."""

from __future__ import annotations

from ncps.settings.locks import REDIS_ADDRESS
from ncps.settings.setting import Setting
from ncps.settings.values import BOOLEAN, OPTIONAL_PATH, TEXT, choice, duration, integer

_LOCKS = "Locks"
_REDIS = "Redis"

ROWS = (
    Setting(
        flag="cache-lock-backend",
        key="cache.lock.backend",
        kind=choice(("local", "redis", "postgresql")),
        default="local",
        group=_LOCKS,
        help="Where it is written down who fetches what: local for one machine, its workers "
        "included; redis or postgresql (the database of --cache-database-url) for several.",
    ),
    Setting(
        flag="cache-lock-redis-key-prefix",
        key="cache.lock.redis.key-prefix",
        kind=TEXT,
        default="ncps:lock:",
        group=_LOCKS,
        help="What the names of all keys and channels in Redis begin with, so that several caches "
        "can share a server.",
    ),
    Setting(
        flag="cache-lock-download-ttl",
        key="cache.lock.download-lock-ttl",
        kind=duration(at_least_s=1),
        default="15s",
        group=_LOCKS,
        help="Time after which the locks of an instance that died or cannot be reached are free. "
        "They are renewed at a third of that for as long as they are held, so it need not be as "
        "long as a download: more than 30s, such as the 5m of the Go program, is taken as 30s, or "
        "as three times --cache-redis-timeout if that is more.",
    ),
    Setting(
        flag="cache-lock-lru-ttl",
        key="cache.lock.lru-lock-ttl",
        kind=duration(at_least_s=1),
        default="15s",
        group=_LOCKS,
        help="Likewise for the lock of whoever removes old NARs.",
    ),
    Setting(
        flag="cache-lock-retry-initial-delay",
        key="cache.lock.retry.initial-delay",
        kind=duration(at_least_s=0.001),
        default="100ms",
        group=_LOCKS,
        help="Time after which one who waits for a lock looks for himself whether it is free; "
        "doubled each time. Releases are announced, so this is for what is missed.",
    ),
    Setting(
        flag="cache-lock-retry-max-delay",
        key="cache.lock.retry.max-delay",
        kind=duration(at_least_s=0.001),
        default="500ms",
        group=_LOCKS,
        help="Longest time between two such looks.",
    ),
    Setting(
        flag="cache-lock-retry-jitter",
        key="cache.lock.retry.jitter",
        kind=BOOLEAN,
        default="true",
        group=_LOCKS,
        help="Shorten these times at random, by half at most.",
    ),
    Setting(
        flag="cache-lock-allow-degraded-mode",
        key="cache.lock.allow-degraded-mode",
        kind=BOOLEAN,
        default="false",
        group=_LOCKS,
        help="Fetch also while the lock backend is away. Instances may then fetch the same thing "
        "at one time; without this they answer 503 to what they have not stored.",
    ),
    Setting(
        flag="cache-redis-addrs",
        key="cache.redis.addrs",
        kind=REDIS_ADDRESS,
        default=(),
        repeatable=True,
        group=_REDIS,
        help="Address of the Redis server, HOST:PORT; or of its Sentinels, together with "
        "--cache-redis-sentinel-master. Redis 5 or newer, with maxmemory-policy noeviction.",
    ),
    Setting(
        flag="cache-redis-username",
        key="cache.redis.username",
        kind=TEXT,
        default="",
        group=_REDIS,
        help="User name for Redis, if it has an ACL.",
    ),
    Setting(
        flag="cache-redis-password",
        key="cache.redis.password",
        kind=TEXT,
        default="",
        is_secret=True,
        group=_REDIS,
        help="Password for Redis.",
    ),
    Setting(
        flag="cache-redis-db",
        key="cache.redis.db",
        kind=integer(),
        default="0",
        group=_REDIS,
        help="Number of the Redis database.",
    ),
    Setting(
        flag="cache-redis-timeout",
        key="cache.redis.timeout",
        kind=duration(at_least_s=0.05),
        default="2s",
        group=_REDIS,
        help="Time that Redis has for an answer, and for letting us connect; after that it counts "
        "as away and is tried again in the background.",
    ),
    Setting(
        flag="cache-redis-use-tls",
        key="cache.redis.use-tls",
        kind=BOOLEAN,
        default="false",
        group=_REDIS,
        help="Use TLS to Redis and to its Sentinels. Certificates are always verified.",
    ),
    Setting(
        flag="cache-redis-tls-ca-file",
        key="cache.redis.tls-ca-file",
        kind=OPTIONAL_PATH,
        default="",
        default_note="the system's certificates",
        group=_REDIS,
        help="PEM file of the certificates to trust.",
    ),
    Setting(
        flag="cache-redis-tls-cert-file",
        key="cache.redis.tls-cert-file",
        kind=OPTIONAL_PATH,
        default="",
        group=_REDIS,
        help="PEM file of a certificate of our own, if Redis asks for one.",
    ),
    Setting(
        flag="cache-redis-tls-key-file",
        key="cache.redis.tls-key-file",
        kind=OPTIONAL_PATH,
        default="",
        group=_REDIS,
        help="PEM file of its key.",
    ),
    Setting(
        flag="cache-redis-sentinel-master",
        key="cache.redis.sentinel-master",
        kind=TEXT,
        default="",
        group=_REDIS,
        help="Name under which the Sentinels at --cache-redis-addrs know the server.",
    ),
    Setting(
        flag="cache-redis-sentinel-username",
        key="cache.redis.sentinel-username",
        kind=TEXT,
        default="",
        group=_REDIS,
        help="User name for the Sentinels, if they have an ACL.",
    ),
    Setting(
        flag="cache-redis-sentinel-password",
        key="cache.redis.sentinel-password",
        kind=TEXT,
        default="",
        is_secret=True,
        group=_REDIS,
        help="Password for the Sentinels.",
    ),
)
