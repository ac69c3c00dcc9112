"""Settings of the cache itself: name and key, where it keeps things, what it remembers."""

from __future__ import annotations

from ncps.nix.narinfo import MAX_SIZE as MAX_NARINFO_SIZE
from ncps.settings.database_url import DATABASE_URL
from ncps.settings.setting import Names, Setting
from ncps.settings.values import (
    BOOLEAN,
    HOSTNAME,
    KEY_PATH,
    OPTIONAL_PATH,
    SIZE,
    STORE_DIR,
    duration,
    hostname_of_machine,
    integer,
    size,
)

ROWS = (
    Setting(
        flag="cache-hostname",
        key="cache.hostname",
        kind=HOSTNAME,
        default=lambda around: hostname_of_machine(around.machine_name),
        default_note="this machine's host name",
        group="Cache",
        help="Bare host name of this cache. It becomes the name of the signing key when that is "
        "generated, at the first start, so clients come to know it; later it changes no key.",
    ),
    Setting(
        flag="cache-secret-key-path",
        key="cache.secret-key-path",
        kind=KEY_PATH,
        default="",
        group="Cache",
        help="File with the secret signing key, as `nix key generate-secret` writes it. Without "
        "one, a key is generated once and kept in the store.",
    ),
    Setting(
        flag="accept-new-key",
        key="cache.accept-new-key",
        kind=BOOLEAN,
        default="false",
        group="Cache",
        help="Sign with another key than the one that the database knows as that of this cache: a "
        "new one where the store has lost it, or the one that lies there by now. For one start; "
        "without it, such a start is refused.",
    ),
    Setting(
        flag="cache-sign-narinfo",
        key="cache.sign-narinfo",
        kind=BOOLEAN,
        default="true",
        group="Cache",
        help="Add the signature of this cache to the narinfos it serves.",
    ),
    Setting(
        flag="cache-storage-local",
        key="cache.storage.local",
        kind=OPTIONAL_PATH,
        default=lambda around: str(around.state_dir / "storage"),
        default_note="storage under $STATE_DIRECTORY or the user's state directory",
        aliases=(
            Names(flag="cache-data-path", environment="CACHE_DATA_PATH", key="cache.data-path"),
        ),
        group="Cache",
        help="Directory that keeps NARs, narinfos and the signing key, unless "
        "--cache-storage-s3-bucket does. It is made if missing.",
    ),
    Setting(
        flag="cache-storage-min-free",
        key="cache.storage.min-free",
        kind=SIZE,
        default="1G",
        default_note="1G, or a tenth of the file system if that is less",
        group="Cache",
        help="Room that downloads leave free on the file systems of the storage and of unfinished "
        "downloads, for the database and for others. What would take of it, counting what running "
        "downloads will still write, is passed on to clients without being kept. An amount and no "
        "share: what the neighbours need does not grow with the disk. A --cache-temp-path on a "
        "file system of its own keeps at most a tenth of it free. 0 to fill it.",
    ),
    Setting(
        flag="cache-database-url",
        key="cache.database-url",
        kind=DATABASE_URL,
        default=lambda around: f"sqlite:{around.state_dir / 'db' / 'db.sqlite'}",
        default_note="sqlite:, db/db.sqlite under $STATE_DIRECTORY or the user's state directory",
        aliases=(Names(key="cache.database.url"),),
        is_secret=True,
        group="Cache",
        help="Database of what is stored: sqlite:/path/to/file for one machine, or "
        "postgresql://user:password@host/database or mysql://user:password@host/database for "
        "several. An SQLite file is made if missing; the schema is brought up to date at start.",
    ),
    Setting(
        flag="cache-temp-path",
        key="cache.temp-path",
        kind=OPTIONAL_PATH,
        default="",
        default_note="store/tmp inside the storage directory; with a bucket, spool under "
        "$STATE_DIRECTORY or the user's state directory",
        group="Cache",
        help="Directory for downloads that are not finished. The default lies on the file system "
        "of the store, so that finishing is a rename; elsewhere every NAR is copied once more.",
    ),
    Setting(
        flag="cache-download-resume-timeout",
        key="cache.download.resume-timeout",
        kind=duration(),
        default="30s",
        group="Cache",
        help="Time for which a download that broke off in the middle is taken up again, at the "
        "same upstream or another, while clients wait; after that their connections are cut.",
    ),
    Setting(
        flag="cache-verify-while-arriving",
        key="cache.verify-while-arriving",
        kind=BOOLEAN,
        default="true",
        group="Cache",
        help="Check NarHash before the last bytes of a NAR go to a client, whatever its "
        "compression. false leaves xz and bzip2, which keep a core busy for as long as a client "
        "takes to unpack them, to the check in the background: until then FileHash decides, which "
        "nobody has signed.",
    ),
    Setting(
        flag="cache-verify-rate",
        key="cache.verify-rate",
        kind=SIZE,
        default="8M",
        group="Cache",
        help="Bytes per second that are read in the background to check stored NARs against their "
        "NarHash where that was not done while they arrived, and to find out what is in files that "
        "were asked for by their name alone; 0 for never.",
    ),
    Setting(
        flag="cache-download-max-count",
        key="cache.download.max-count",
        kind=integer(at_least=1),
        default="1000",
        group="Cache",
        help="Downloads of NARs that run or wait at once, at most. Requests that need one more are "
        "told to come back (503 with Retry-After); what is stored or arriving is served.",
    ),
    Setting(
        flag="cache-download-max-spool-size",
        key="cache.download.max-spool-size",
        kind=SIZE,
        default="64G",
        group="Cache",
        help="Bytes of unfinished downloads, at most, each counted whole from its start if its "
        "size is known; further ones wait. A NAR larger than this is fetched alone. 0 for no such "
        "limit.",
    ),
    Setting(
        flag="cache-download-queue-timeout",
        key="cache.download.queue-timeout",
        kind=duration(at_least_s=0.001),
        default="1m",
        group="Cache",
        help="Time that a download may wait for --cache-download-max-spool-size, before its "
        "clients are told to come back (503 with Retry-After).",
    ),
    Setting(
        flag="cache-max-decompression-ratio",
        key="cache.max-decompression-ratio",
        kind=integer(at_least=2),
        default="1000",
        group="Cache",
        help="Bytes that one compressed byte may become, beyond the first 64 MiB. A NAR that says "
        "that it becomes more is not unpacked while it arrives, but checked later; a transfer of "
        "unknown size that does is broken off.",
    ),
    Setting(
        flag="cache-narinfo-max-size",
        key="cache.narinfo-max-size",
        kind=size(at_least=4096, at_most=MAX_NARINFO_SIZE),
        default="4M",
        group="Cache",
        help="Size of a narinfo of an upstream, at most, and at most 4M; larger ones are not "
        "believed.",
    ),
    Setting(
        flag="cache-negative-ttl",
        key="cache.negative.ttl",
        kind=duration(),
        default="10s",
        group="Cache",
        help="Time for which the cache remembers that no upstream has a path; 0 for never.",
    ),
    Setting(
        flag="cache-negative-max-entries",
        key="cache.negative.max-entries",
        kind=integer(),
        default="100000",
        group="Cache",
        help="Absent paths remembered, at most.",
    ),
    Setting(
        flag="cache-narinfo-memory-size",
        key="cache.narinfo-memory-size",
        kind=SIZE,
        default="64M",
        group="Cache",
        help="Memory for narinfos ready to be served; 0 to always ask the database.",
    ),
    Setting(
        flag="cache-nix-cache-info-priority",
        key="cache.nix-cache-info.priority",
        kind=integer(),
        default="10",
        group="Cache",
        help="Priority told to clients in nix-cache-info: they ask caches with lower numbers "
        "first. cache.nixos.org has 40.",
    ),
    Setting(
        flag="cache-nix-cache-info-want-mass-query",
        key="cache.nix-cache-info.want-mass-query",
        kind=BOOLEAN,
        default="true",
        group="Cache",
        help="Tell clients in nix-cache-info that they may ask for many paths at once.",
    ),
    Setting(
        flag="cache-nix-cache-info-store-dir",
        key="cache.nix-cache-info.store-dir",
        kind=STORE_DIR,
        default="/nix/store",
        group="Cache",
        help="Store directory told to clients in nix-cache-info. Only /nix/store is supported.",
    ),
)
