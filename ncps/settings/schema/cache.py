"""Settings of the cache itself: name and key, storage, memory and verification."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ncps.nix.narinfo import MAX_SIZE as MAX_NARINFO_SIZE
from ncps.settings.database_url import DATABASE_URL, DatabaseURL
from ncps.settings.declare import branch, setting
from ncps.settings.eviction import MAX_SIZE
from ncps.settings.schema.database import DatabaseSettings
from ncps.settings.schema.locks import LockSettings, RedisSettings
from ncps.settings.schema.size import EvictionSettings, QuarantineSettings
from ncps.settings.schema.storage import StorageSettings
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.settings.setting import SettingNames
from ncps.settings.values import (
    BOOLEAN,
    HOSTNAME,
    KEY_PATH,
    OPTIONAL_PATH,
    PATH,
    SIZE,
    STORE_DIR,
    duration,
    hostname_of_machine,
    integer,
    size,
)


@frozen(kw_only=True)
class DownloadSettings:
    """The number and size of downloads, and how they go on after trouble."""

    resume_timeout_s: float = setting(
        duration(),
        "30s",
        "Time for which a download that broke off in the middle is taken up again, at the same "
        "upstream or another, while clients wait; after that their connections are cut.",
    )
    max_count: int = setting(
        integer(at_least=1),
        "1000",
        "Downloads of NARs that run or wait at once, at most. Requests that need one more are "
        "told to come back (503 with Retry-After); what is stored or arriving is served.",
        shared=True,
    )
    max_spool_size_bytes: int = setting(
        SIZE,
        "64G",
        "Bytes of unfinished downloads, at most, each counted whole from its start if its size is "
        "known; further ones wait. A NAR larger than this is fetched alone. 0 for no such limit.",
        shared=True,
    )
    queue_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "1m",
        "Time that a download may wait for --cache-download-max-spool-size, before its clients "
        "are told to come back (503 with Retry-After).",
    )
    poll_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "30s",
        "Time for which a NAR that another instance is fetching is waited for while that one "
        "cannot be reached, before clients are told to come back (504 with Retry-After).",
        group="Cluster",
    )


@frozen(kw_only=True)
class NegativeSettings:
    """How long absence is remembered."""

    ttl_s: float = setting(
        duration(),
        "10s",
        "Time for which the cache remembers that no upstream has a path; 0 for never.",
    )
    max_entries: int = setting(
        integer(),
        "100000",
        "Absent paths remembered, at most.",
        shared=True,
    )


@frozen(kw_only=True)
class NixCacheInfoSettings:
    """The answer to `/nix-cache-info` (D8)."""

    priority: int = setting(
        integer(),
        "10",
        "Priority told to clients in nix-cache-info: they ask caches with lower numbers first. "
        "cache.nixos.org has 40.",
    )
    want_mass_query: bool = setting(
        BOOLEAN,
        "true",
        "Tell clients in nix-cache-info that they may ask for many paths at once.",
    )
    store_dir: str = setting(
        STORE_DIR,
        "/nix/store",
        "Store directory told to clients in nix-cache-info. Only /nix/store is supported.",
    )


@frozen(kw_only=True)
class CacheSettings:
    """The cache.

    :ivar temp_path: None for the store's own directory; never None if a bucket is used.
    :ivar max_size_bytes: 0 for any size.
    :ivar secret_key_path: None for a key of our own making.
    """

    hostname: str = setting(
        HOSTNAME,
        lambda around: hostname_of_machine(around.machine_name),
        "Bare host name of this cache. It becomes the name of the signing key when that is "
        "generated, at the first start, so clients come to know it; later it changes no key.",
        note="this machine's host name",
    )
    secret_key_path: Path | None = setting(
        KEY_PATH,
        "",
        "File with the secret signing key, as `nix key generate-secret` writes it. Without one, a "
        "key is generated once and kept in the store.",
    )
    accept_new_key: bool = setting(
        BOOLEAN,
        "false",
        "Sign with another key than the one that the database knows as that of this cache: a new "
        "one where the store has lost it, or the one that lies there by now. For one start; "
        "without it, such a start is refused.",
        flag="accept-new-key",
    )
    sign_narinfo: bool = setting(
        BOOLEAN,
        "true",
        "Add the signature of this cache to the narinfos it serves.",
    )
    storage: StorageSettings = branch(StorageSettings)
    database_url: DatabaseURL = setting(
        DATABASE_URL,
        lambda around: f"sqlite:{around.state_dir / 'db' / 'db.sqlite'}",
        "Database of what is stored: sqlite:/path/to/file for one machine, or "
        "postgresql://user:password@host/database or mysql://user:password@host/database for "
        "several. An SQLite file is made if missing; the schema is brought up to date at start.",
        note="sqlite:, db/db.sqlite under $STATE_DIRECTORY or the user's state directory",
        aliases=(SettingNames(key="cache.database.url"),),
        is_secret=True,
    )
    temp_path: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "Directory for downloads that are not finished. The default lies on the file system of "
        "the store, so that finishing is a rename; elsewhere every NAR is copied once more.",
        note="store/tmp inside the storage directory; with a bucket, spool under $STATE_DIRECTORY "
        "or the user's state directory",
    )
    download: DownloadSettings = branch(DownloadSettings)
    verify_while_arriving: bool = setting(
        BOOLEAN,
        "true",
        "Check NarHash before the last bytes of a NAR go to a client, whatever its compression. "
        "false leaves xz and bzip2, which keep a core busy for as long as a client takes to "
        "unpack them, to the check in the background: until then FileHash decides, which nobody "
        "has signed.",
    )
    verify_rate_bytes: int = setting(
        SIZE,
        "8M",
        "Bytes per second that are read in the background to check stored NARs against their "
        "NarHash where that was not done while they arrived, and to find out what is in files "
        "that were asked for by their name alone; 0 for never.",
    )
    max_decompression_ratio: int = setting(
        integer(at_least=2),
        "1000",
        "Bytes that one compressed byte may become, beyond the first 64 MiB. A NAR that says that "
        "it becomes more is not unpacked while it arrives, but checked later; a transfer of "
        "unknown size that does is broken off.",
    )
    narinfo_max_size_bytes: int = setting(
        size(at_least=4096, at_most=MAX_NARINFO_SIZE),
        "4M",
        "Size of a narinfo of an upstream, at most, and at most 4M; larger ones are not believed.",
    )
    negative: NegativeSettings = branch(NegativeSettings)
    narinfo_memory_size_bytes: int = setting(
        SIZE,
        "64M",
        "Memory for narinfos ready to be served; 0 to always ask the database.",
        shared=True,
    )
    nix_cache_info: NixCacheInfoSettings = branch(NixCacheInfoSettings)
    database: DatabaseSettings = branch(DatabaseSettings, "Database server")
    max_size_bytes: int = setting(
        MAX_SIZE,
        "",
        "Bytes of NARs that the store may hold. Beyond that the NARs unwanted for longest are "
        "removed; they can be fetched again. A NAR larger than this is passed on to clients "
        "without being kept. Without it the store grows until --cache-storage-min-free is "
        "reached.",
        group="Size",
    )
    lru: EvictionSettings = branch(EvictionSettings, "Size")
    quarantine: QuarantineSettings = branch(QuarantineSettings, "Size")
    upstream: UpstreamsSettings = branch(UpstreamsSettings, "Upstreams")
    netrc_file: Path = setting(
        PATH,
        lambda around: str(around.home / ".netrc"),
        "File with user names and passwords for upstreams, by host name. It may be missing.",
        note="~/.netrc",
        flag="netrc-file",
        group="Upstreams",
    )
    lock: LockSettings = branch(LockSettings, "Locks")
    redis: RedisSettings = branch(RedisSettings, "Redis")
