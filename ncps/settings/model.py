"""The settings as one frozen tree of plain values: seconds are float, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, get_type_hints

import attrs
from attrs import field, frozen

from ncps.settings.database_url import DatabaseURL
from ncps.settings.eviction import ScheduleSetting
from ncps.settings.locks import RedisAddress
from ncps.settings.proxies import ProxiesSetting, ProxyURL

_T = TypeVar("_T")


@frozen(kw_only=True)
class UpstreamSetting:
    """One upstream, everything about it decided.

    :ivar url: base URL without credentials, query and trailing slash.
    :ivar priority: lower is asked first.
    :ivar proxies: through which it, and what it leads to, is asked.
    :ivar user: from the URL, percent-decoded; None if the URL had no credentials.
    """

    url: str
    priority: int
    dialer_timeout_s: float
    response_header_timeout_s: float
    nar_timeout_s: float
    idle_timeout_s: float
    proxies: ProxiesSetting
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: str
    console_writer_enabled: bool
    console_writer_prefix: str


@frozen(kw_only=True)
class PrometheusSettings:
    """Metrics."""

    enabled: bool


@frozen(kw_only=True)
class ServerSettings:
    """Our own listening sockets.

    :ivar addr: endpoint strings of Twisted.
    :ivar workers: processes that serve.
    :ivar trusted_proxies: addresses, networks and `unix`, as texts.
    """

    addr: tuple[str, ...]
    workers: int
    idle_timeout_s: float
    header_timeout_s: float
    write_stall_timeout_s: float
    drain_timeout_s: float
    drain_delay_s: float
    min_send_rate_bytes: int
    min_send_window_s: float
    max_connections: int
    max_connections_per_address: int
    trusted_proxies: tuple[str, ...]
    max_requests: int
    max_header_size_bytes: int
    max_headers: int


@frozen(kw_only=True)
class S3Settings:
    """Which bucket, and how to come to it; an empty text says nothing.

    :ivar bucket: empty if a directory is used.
    """

    bucket: str
    endpoint: str
    region: str
    prefix: str
    force_path_style: bool
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    storage_class: str
    server_side_encryption: str
    kms_key_id: str
    connect_timeout_s: float
    read_timeout_s: float
    max_attempts: int
    threads: int
    queue_timeout_s: float
    part_size_bytes: int
    redirect: bool
    redirect_min_size_bytes: int
    redirect_ttl_s: float


@frozen(kw_only=True)
class StorageSettings:
    """Where objects are kept: in a directory or in a bucket.

    :ivar local: the directory; None if a bucket is used.
    """

    local: Path | None
    min_free_bytes: int
    s3: S3Settings


@frozen(kw_only=True)
class DatabasePoolSettings:
    """How many connections; 0 for what is usual."""

    max_open_conns: int
    max_idle_conns: int


@frozen(kw_only=True)
class DatabaseSettings:
    """How a database server is used.

    :ivar password: empty where the URL has it or none is needed.
    """

    password: str = field(repr=False)
    pool: DatabasePoolSettings
    connect_timeout_s: float
    statement_timeout_s: float


@frozen(kw_only=True)
class DownloadSettings:
    """How many downloads, how large, and how they go on after trouble."""

    resume_timeout_s: float
    poll_timeout_s: float
    max_count: int
    max_spool_size_bytes: int
    queue_timeout_s: float


@frozen(kw_only=True)
class NegativeSettings:
    """How long absence is remembered."""

    ttl_s: float
    max_entries: int


@frozen(kw_only=True)
class NixCacheInfoSettings:
    """What `/nix-cache-info` says (D8)."""

    priority: int
    want_mass_query: bool
    store_dir: str


@frozen(kw_only=True)
class UpstreamsSettings:
    """Whom to ask, and with how much patience.

    :ivar upstreams: with timeouts of their own where given, else those of all.
    :ivar public_keys: as Nix writes them, each checked for its form.
    :ivar proxy: for all upstreams that have none of their own; None for what the environment says.
    :ivar away_answer: absent or error.
    :ivar allow_internal_addresses: to upstreams that are at a public address.
    """

    upstreams: tuple[UpstreamSetting, ...]
    public_keys: tuple[str, ...]
    dialer_timeout_s: float
    response_header_timeout_s: float
    nar_timeout_s: float
    idle_timeout_s: float
    proxy: ProxyURL | None
    min_receive_rate_bytes: int
    min_receive_window_s: float
    max_connections: int
    max_queries: int
    max_queue: int
    queue_timeout_s: float
    max_redirects: int
    max_header_size_bytes: int
    away_answer: str
    allow_internal_addresses: bool

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs alone."""
        return tuple(upstream.url for upstream in self.upstreams)


@frozen(kw_only=True)
class RetrySettings:
    """How often those who wait for a lock look for themselves."""

    initial_delay_s: float
    max_delay_s: float
    jitter: bool


@frozen(kw_only=True)
class LockKeySettings:
    """What locks are called in Redis."""

    key_prefix: str


@frozen(kw_only=True)
class LockSettings:
    """Where it is written down who fetches what.

    :ivar backend: local, redis or postgresql.
    """

    backend: str
    redis: LockKeySettings
    download_lock_ttl_s: float
    lru_lock_ttl_s: float
    retry: RetrySettings
    allow_degraded_mode: bool


@frozen(kw_only=True)
class RedisSettings:
    """The Redis server.

    :ivar addrs: of the one server, or of its Sentinels if `sentinel_master` is not empty.
    """

    addrs: tuple[RedisAddress, ...]
    username: str
    password: str = field(repr=False)
    db: int
    timeout_s: float
    use_tls: bool
    tls_ca_file: Path | None
    tls_cert_file: Path | None
    tls_key_file: Path | None
    sentinel_master: str
    sentinel_username: str
    sentinel_password: str = field(repr=False)


@frozen(kw_only=True)
class EvictionSettings:
    """What is removed from the store, and when.

    :ivar low_mark: percentage of the size the store may have.
    :ivar timezone: a name, or Local.
    """

    schedule: ScheduleSetting
    timezone: str
    low_mark: int
    grace_s: float
    orphan_grace_s: float


@frozen(kw_only=True)
class QuarantineSettings:
    """What is kept of stored files that were found wrong; 0 of anything: nothing."""

    max_count: int
    max_size_bytes: int
    max_age_s: float


@frozen(kw_only=True)
class CacheSettings:
    """The cache.

    :ivar temp_path: None for the store's own directory; never None if a bucket is used.
    :ivar max_size_bytes: 0 for any size.
    :ivar secret_key_path: None for a key of our own making.
    """

    hostname: str
    secret_key_path: Path | None
    accept_new_key: bool
    sign_narinfo: bool
    storage: StorageSettings
    database_url: DatabaseURL
    database: DatabaseSettings
    temp_path: Path | None
    netrc_file: Path
    download: DownloadSettings
    negative: NegativeSettings
    narinfo_memory_size_bytes: int
    narinfo_max_size_bytes: int
    max_decompression_ratio: int
    verify_while_arriving: bool
    verify_rate_bytes: int
    nix_cache_info: NixCacheInfoSettings
    upstream: UpstreamsSettings
    max_size_bytes: int
    lru: EvictionSettings
    quarantine: QuarantineSettings
    lock: LockSettings
    redis: RedisSettings


@frozen(kw_only=True)
class ClusterSettings:
    """How several instances that are one cache know each other.

    :ivar advertise_url: empty if the others cannot reach this one.
    """

    advertise_url: str
    secret: str = field(repr=False)


@frozen(kw_only=True)
class Settings:
    """All settings, and where each came from.

    :ivar config_file: the file that was read, if any.
    :ivar warnings: one line each, for the log.
    """

    log: LogSettings
    prometheus: PrometheusSettings
    server: ServerSettings
    cache: CacheSettings
    cluster: ClusterSettings
    config_file: Path | None = None
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(
        default=MappingProxyType({}), repr=False, eq=False, hash=False
    )

    def origin(self, key: str) -> str:
        """Say where the value of a key came from: a flag, a variable, a file or `default`."""
        return self.origins[key]


def build(cls: type[_T], values: Mapping[str, object], prefix: str = "") -> _T:
    """Make a branch of the tree from values by dotted path; KeyError if one is missing."""
    hints = get_type_hints(cls)
    arguments: dict[str, object] = {}
    for name in attrs.fields_dict(cls):  # type: ignore[arg-type]  # all our branches are attrs classes
        path = prefix + name
        if path in values or not attrs.has(hints[name]):
            arguments[name] = values[path]
        else:
            arguments[name] = build(hints[name], values, f"{path}.")
    return cls(**arguments)
