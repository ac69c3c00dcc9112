"""Settings of locks and of Redis."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.locks import REDIS_ADDRESS, RedisEndpoint
from ncps.settings.values import BOOLEAN, OPTIONAL_PATH, TEXT, choice, duration, integer


@frozen(kw_only=True)
class RetrySettings:
    """How often a process that waits for a lock looks whether it is free."""

    initial_delay_s: float = setting(
        duration(at_least_s=0.001),
        "100ms",
        "Time after which a process that waits for a lock looks for itself whether it is free; "
        "doubled each time. Releases are announced, so this is for what is missed.",
    )
    max_delay_s: float = setting(
        duration(at_least_s=0.001),
        "500ms",
        "Longest time between two such looks.",
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
        "What the names of all keys and channels in Redis begin with, so that several caches can "
        "share a server.",
    )


@frozen(kw_only=True)
class LockSettings:
    """Where the locks are kept."""

    backend: str = setting(
        choice(("local", "redis", "postgresql")),
        "local",
        "Where it is written down who fetches what: local for one machine, its workers included; "
        "redis or postgresql (the database of --cache-database-url) for several.",
    )
    redis: LockKeySettings = branch(LockKeySettings)
    download_lock_ttl_s: float = setting(
        duration(at_least_s=1),
        "15s",
        "Time after which the locks of an instance that died or cannot be reached are free. They "
        "are renewed at a third of that for as long as they are held, so it need not be as long "
        "as a download: more than 30s, such as the 5m of the Go program, is taken as 30s, or as "
        "three times --cache-redis-timeout if that is more.",
        flag="cache-lock-download-ttl",
    )
    lru_lock_ttl_s: float = setting(
        duration(at_least_s=1),
        "15s",
        "Likewise for the lock under which old NARs are removed.",
        flag="cache-lock-lru-ttl",
    )
    retry: RetrySettings = branch(RetrySettings)
    allow_degraded_mode: bool = setting(
        BOOLEAN,
        "false",
        "Fetch also while the lock backend is away. Instances may then fetch the same thing at "
        "one time; without this they answer 503 to what they have not stored.",
    )


@frozen(kw_only=True)
class RedisSettings:
    """The Redis server.

    :ivar addrs: of the one server, or of its Sentinels if `sentinel_master` is not empty.
    """

    addrs: tuple[RedisEndpoint, ...] = setting(
        REDIS_ADDRESS,
        (),
        "Address of the Redis server, HOST:PORT; or of its Sentinels, together with "
        "--cache-redis-sentinel-master. Redis 5 or newer, with maxmemory-policy noeviction.",
    )
    username: str = setting(
        TEXT,
        "",
        "User name for Redis, if it has an ACL.",
    )
    password: str = setting(
        TEXT,
        "",
        "Password for Redis.",
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
        "Time that Redis has for an answer, and for letting us connect; after that it counts as "
        "away and is tried again in the background.",
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
        "PEM file of a certificate of our own, if Redis asks for one.",
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
