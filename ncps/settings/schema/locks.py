"""Settings of locks and of Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.kinds.redis import REDIS_ADDRESS, RedisEndpoint
from ncps.settings.kinds.values import BOOLEAN, OPTIONAL_PATH, TEXT, choice, duration, integer

SHARED: Final = ("redis", "postgresql")
"""Values of cache-lock-backend for locks that reach other machines."""

BACKENDS: Final = ("local", *SHARED)
"""All values of cache-lock-backend; `ncps_lock_acquisitions_total` has them as labels."""


@frozen(kw_only=True)
class RetrySettings:
    """How often a process that waits for a lock checks whether the lock is free."""

    initial_delay_s: float = setting(
        duration(at_least_s=0.001),
        "100ms",
        "Time after which a process that waits for a lock checks whether it is free; doubled each "
        "time. A process that releases a lock announces this, so these checks only make up for "
        "lost announcements.",
    )
    max_delay_s: float = setting(
        duration(at_least_s=0.001),
        "500ms",
        "Longest time between two such checks.",
    )
    jitter: bool = setting(
        BOOLEAN,
        "true",
        "Shorten these times at random, by half at most.",
    )


@frozen(kw_only=True)
class LockKeySettings:
    """The names of locks in Redis."""

    key_prefix: str = setting(
        TEXT,
        "ncps:lock:",
        "Prefix of the names of all keys and channels in Redis, so that several caches can share "
        "a server.",
    )


@frozen(kw_only=True)
class LockSettings:
    """The place of the locks, and their times."""

    backend: str = setting(
        choice(BACKENDS),
        "local",
        "Place of the locks, which let one process at a time fetch an object. local: for one "
        "machine, its workers included. redis, or postgresql (the database of "
        "--cache-database-url): for several machines.",
    )
    redis: LockKeySettings = branch(LockKeySettings)
    download_lock_ttl_s: float = setting(
        duration(at_least_s=1),
        "15s",
        "Time after which the locks of an instance that died or cannot be reached are free. A "
        "holder renews its locks at a third of this time, so it need not be as long as a "
        "download. More than 30s, such as the 5m of the Go program, is shortened to 30s, or to "
        "three times --cache-redis-timeout if that is more.",
        flag="cache-lock-download-ttl",
    )
    lru_lock_ttl_s: float = setting(
        duration(at_least_s=1),
        "15s",
        "The same time for the lock under which old NARs are removed.",
        flag="cache-lock-lru-ttl",
    )
    retry: RetrySettings = branch(RetrySettings)
    allow_degraded_mode: bool = setting(
        BOOLEAN,
        "false",
        "Fetch also while the lock backend is away. Several instances may then fetch the same "
        "object at the same time. Without this setting, ncps then answers 503 for objects that "
        "are not stored.",
    )


@frozen(kw_only=True)
class RedisSettings:
    """The Redis server, or several.

    :ivar addrs: of the servers, or of the Sentinels of one if `sentinel_master` is not empty.
    """

    addrs: tuple[RedisEndpoint, ...] = setting(
        REDIS_ADDRESS,
        (),
        "Address of the Redis server, HOST:PORT; or of 3 or 5 independent servers, of which a "
        "majority has to grant each lock (Redlock); or of the Sentinels of one server, together "
        "with --cache-redis-sentinel-master. Redis 5 or newer, with maxmemory-policy noeviction.",
    )
    username: str = setting(
        TEXT,
        "",
        "User name for Redis, if it has an ACL; the same for all servers.",
    )
    password: str = setting(
        TEXT,
        "",
        "Password for Redis; the same for all servers.",
        is_secret=True,
    )
    db: int = setting(
        integer(),
        "0",
        "Number of the Redis database.",
    )
    timeout_s: float = setting(
        duration(at_least_s=0.05),
        "2s",
        "Time that a Redis server has to accept a connection and to answer. After that, it counts "
        "as away, and ncps tries again in the background.",
    )
    use_tls: bool = setting(
        BOOLEAN,
        "false",
        "Use TLS to Redis and to its Sentinels. Certificates are always verified.",
    )
    tls_ca_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "PEM file of the certificates to trust.",
        note="the system's certificates",
    )
    tls_cert_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "PEM file of the certificate of ncps, if Redis asks for one.",
    )
    tls_key_file: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "PEM file of its key.",
    )
    sentinel_master: str = setting(
        TEXT,
        "",
        "Name under which the Sentinels at --cache-redis-addrs know the server.",
    )
    sentinel_username: str = setting(
        TEXT,
        "",
        "User name for the Sentinels, if they have an ACL.",
    )
    sentinel_password: str = setting(
        TEXT,
        "",
        "Password for the Sentinels.",
        is_secret=True,
    )
