"""Settings of the cache itself: name and key, storage, memory and verification."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ncps.codec.ratio import USUAL as USUAL_RATIO
from ncps.nix.narinfo import MAX_SIZE as MAX_NARINFO_SIZE
from ncps.settings.declare import branch, setting
from ncps.settings.kinds.database_url import DATABASE_URL, DatabaseURL
from ncps.settings.kinds.schedule import MAX_SIZE
from ncps.settings.kinds.values import (
    BOOLEAN,
    HOSTNAME,
    KEY_PATH,
    OPTIONAL_PATH,
    PATH,
    PUBLIC_KEY,
    SIZE,
    STORE_DIR,
    TEXT,
    boolean_or,
    duration,
    hostname_of_machine,
    integer,
    show_size,
    size,
)
from ncps.settings.schema.database import DatabaseSettings
from ncps.settings.schema.eviction import EvictionSettings, QuarantineSettings
from ncps.settings.schema.extras import ExtraSettings
from ncps.settings.schema.locks import LockSettings, RedisSettings
from ncps.settings.schema.prefetch import PrefetchSettings
from ncps.settings.schema.recompress import RecompressSettings
from ncps.settings.schema.storage import StorageSettings
from ncps.settings.schema.uploads import UploadSettings
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.settings.setting import SettingNames


@frozen(kw_only=True)
class DownloadSettings:
    """The number and size of downloads, and what they do after an error."""

    resume_timeout_s: float = setting(
        duration(),
        "30s",
        "Time for which ncps tries to continue a download that broke off in the middle, at the "
        "same upstream or another, while clients wait; after that it cuts their connections.",
    )
    max_count: int = setting(
        integer(at_least=1),
        "1000",
        "Downloads of NARs that run or wait at the same time, at most. A request that needs one "
        "more gets 503 with Retry-After; ncps still serves NARs that are stored or arriving.",
        shared=True,
        counted=True,
        reloads=True,
    )
    max_spool_size_bytes: int = setting(
        SIZE,
        "64G",
        "Bytes of unfinished downloads, at most; further downloads wait. A download whose size is "
        "known counts with its whole size from its start. A NAR larger than this is fetched "
        "alone. 0 for no such limit.",
        shared=True,
        counted=True,
        reloads=True,
    )
    small_size_bytes: int = setting(
        SIZE,
        "1M",
        "A NAR of at most this size is fetched into memory, and clients get its first byte after "
        "ncps has checked all of it. At most 64M of such NARs are in memory at the same time; "
        "ncps fetches further ones like larger NARs. 0 to fetch all NARs like large ones.",
    )
    queue_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "1m",
        "Time that a download may wait for --cache-download-max-spool-size, before its clients "
        "get 503 with Retry-After.",
        reloads=True,
    )
    poll_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "30s",
        "Time for which ncps waits for a NAR that another instance is fetching, while that "
        "instance cannot be reached. After that, clients get 504 with Retry-After.",
        group="Cluster",
        reloads=True,
    )


@frozen(kw_only=True)
class NegativeSettings:
    """The absent paths that the cache remembers: how many, and how long."""

    ttl_s: float = setting(
        duration(),
        "10s",
        "Time for which the cache remembers that no upstream has a path; 0 for never.",
    )
    max_entries: int = setting(
        integer(),
        "100000",
        "Absent paths that the cache remembers, at most.",
        shared=True,
    )


@frozen(kw_only=True)
class NixCacheInfoSettings:
    """The answer to `/nix-cache-info` (D8)."""

    priority: int = setting(
        integer(),
        "10",
        "Priority of this cache in nix-cache-info: clients ask caches with lower numbers first. "
        "cache.nixos.org has 40.",
    )
    want_mass_query: bool = setting(
        BOOLEAN,
        "true",
        "Tell clients in nix-cache-info that they may ask for many paths at the same time.",
    )
    store_dir: str = setting(
        STORE_DIR,
        "/nix/store",
        "Store directory in nix-cache-info. Only /nix/store is supported.",
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
        "Bare host name of this cache. When ncps generates the signing key, at the first start, "
        "it names the key after this host, and clients know the key by that name. A later change "
        "of this setting changes no key.",
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
        "Accept a signing key that differs from the one in the database: the key that the store "
        "has now, or a new key if the store has lost its key. Set this for one start; without it, "
        "ncps refuses to start with another key.",
        flag="accept-new-key",
    )
    sign_narinfo: bool = setting(
        BOOLEAN,
        "true",
        "Add the signature of this cache to the narinfos it serves.",
    )
    get_token: str = setting(
        TEXT,
        "",
        "A token that every client must show to read, as Bearer or as the password of Basic. "
        "Tokens of the database (`ncps token create`) can be revoked, expire, and have names.",
        group="Authentication",
        is_secret=True,
        reloads=True,
    )
    allow_put_verb: bool = setting(
        BOOLEAN,
        "false",
        "Allow uploads. Before the first token is made, and if no other source of credentials is "
        "configured, anybody who reaches the port may upload. After that, uploads need the scope "
        "write. A client with that scope may upload below /upload without this setting.",
        group="Authentication",
        reloads=True,
    )
    allow_delete_verb: bool = setting(
        BOOLEAN,
        "false",
        "Allow deletions. Before the first token is made, and if no other source of credentials "
        "is configured, anybody who reaches the port may delete. After that, deletions need the "
        "scope delete.",
        group="Authentication",
        reloads=True,
    )
    storage: StorageSettings = branch(StorageSettings)
    database_url: DatabaseURL = setting(
        DATABASE_URL,
        lambda around: f"sqlite:{around.state_dir / 'db' / 'db.sqlite'}",
        "Database with the index of the store: sqlite:/path/to/file for one machine, or "
        "postgresql://user:password@host/database or mysql://user:password@host/database for "
        "several. ncps makes a missing SQLite file, and updates the schema when it starts.",
        note="sqlite:, db/db.sqlite under $STATE_DIRECTORY or the user's state directory",
        aliases=(SettingNames(key="cache.database.url"),),
        is_secret=True,
    )
    temp_path: Path | None = setting(
        OPTIONAL_PATH,
        "",
        "Directory for unfinished downloads. The default is on the file system of the store, so "
        "that ncps stores a NAR by a rename. On another file system it has to copy every NAR once "
        "more.",
        note="store/tmp inside the storage directory; with a bucket, spool under $STATE_DIRECTORY "
        "or the user's state directory",
    )
    group_writes: bool = setting(
        BOOLEAN,
        "true",
        "Write small files, and changes of a SQLite database, that wait at the same time together, "
        "so that they share one sync. ncps stores the same files and rows in either case. Turn it "
        "off to find out whether it causes a fault.",
    )
    download: DownloadSettings = branch(DownloadSettings)
    verify_while_arriving: str = setting(
        boolean_or("auto"),
        "auto",
        "When ncps checks NarHash. auto: while a NAR arrives, if idle cores can unpack it as fast "
        "as it arrives; otherwise later, in the background. true: always before the last bytes of "
        "a NAR go to a client, which waits until they are unpacked. false: like auto for zstd; "
        "always in the background for xz and bzip2. Until NarHash is checked, ncps relies on "
        "FileHash, which is not signed. NARs of up to --cache-download-small-size are always "
        "checked first, except xz and bzip2 with false.",
    )
    verify_rate_bytes: int = setting(
        SIZE,
        "8M",
        "Bytes per second that ncps reads in the background to check stored NARs against their "
        "NarHash, if they were not checked while they arrived, and to identify files that clients "
        "asked for by name alone. 0 for never.",
    )
    max_decompression_ratio: int = setting(
        integer(at_least=2),
        str(USUAL_RATIO),
        "Bytes that one compressed byte may become, beyond the first 64 MiB. A NAR that announces "
        "more is not decompressed while it arrives, but checked later. A transfer of unknown size "
        "that becomes more is cut.",
        counted=True,
    )
    narinfo_max_size_bytes: int = setting(
        size(at_least=4096, at_most=MAX_NARINFO_SIZE),
        show_size(MAX_NARINFO_SIZE),
        "Size of a narinfo of an upstream, at most; ncps does not accept larger ones. 4M is the "
        "largest value.",
        counted=True,
        reloads=True,
    )
    negative: NegativeSettings = branch(NegativeSettings)
    narinfo_memory_size_bytes: int = setting(
        SIZE,
        "64M",
        "Memory for narinfos that are ready to be served; 0 to ask the database each time.",
        shared=True,
    )
    nar_memory_size_bytes: int = setting(
        SIZE,
        "16M",
        "Memory for prepared answers about stored NARs, about 2.5 KiB each, without the bytes of "
        "the NARs; 0 to ask the database each time.",
        shared=True,
    )
    prefetch: PrefetchSettings = branch(PrefetchSettings, "Prefetch")
    nix_cache_info: NixCacheInfoSettings = branch(NixCacheInfoSettings)
    database: DatabaseSettings = branch(DatabaseSettings, "Database server")
    max_size_bytes: int = setting(
        MAX_SIZE,
        "",
        "Bytes of NARs that the store may hold. Beyond that, ncps removes the NARs whose last "
        "request by a client is the oldest; they can be fetched again. A NAR larger than this is "
        "passed on to clients and not stored. Without this setting the store grows until "
        "--cache-storage-min-free is reached.",
        group="Size",
        counted=True,
    )
    lru: EvictionSettings = branch(EvictionSettings, "Size")
    extra: ExtraSettings = branch(ExtraSettings, "Size")
    quarantine: QuarantineSettings = branch(QuarantineSettings, "Size")
    recompress: RecompressSettings = branch(RecompressSettings, "Recompression")
    upload: UploadSettings = branch(UploadSettings, "Uploads")
    require_trusted_signature: bool = setting(
        BOOLEAN,
        "false",
        "Accept an uploaded narinfo only if a key of --cache-trusted-upload-key has signed it, or "
        "its path follows from its content address. Without this, ncps trusts each client that "
        "may write. In both cases ncps signs the narinfos that it accepts.",
        group="Uploads",
        reloads=True,
    )
    trusted_upload_keys: tuple[str, ...] = setting(
        PUBLIC_KEY,
        (),
        "Public key that may sign uploaded narinfos, as NAME:BASE64; may be given several times. "
        "The keys of upstreams do not count for uploads.",
        flag="cache-trusted-upload-key",
        environment="CACHE_TRUSTED_UPLOAD_KEYS",
        group="Uploads",
        reloads=True,
    )
    upstream: UpstreamsSettings = branch(UpstreamsSettings, "Upstreams")
    netrc_file: Path = setting(
        PATH,
        lambda around: str(around.home / ".netrc"),
        "File with user names and passwords for upstreams, by host name. The default file may be "
        "missing.",
        note="~/.netrc",
        flag="netrc-file",
        group="Upstreams",
        reloads=True,
    )
    lock: LockSettings = branch(LockSettings, "Locks")
    redis: RedisSettings = branch(RedisSettings, "Redis")
