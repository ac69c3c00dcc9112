"""Settings of the store, in a directory or in a bucket of S3."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.kinds.s3 import BUCKET, ENDPOINT, PREFIX, REGION, STORAGE_CLASS
from ncps.settings.kinds.values import (
    BOOLEAN,
    OPTIONAL_PATH,
    SIZE,
    TEXT,
    choice,
    duration,
    integer,
    size,
)
from ncps.settings.setting import SettingNames


@frozen(kw_only=True)
class S3Settings:
    """The bucket, and the access to it; an empty text counts as not set.

    :ivar bucket: empty if a directory is used.
    """

    bucket: str = setting(
        BUCKET,
        "",
        "Bucket that keeps NARs, narinfos and the signing key, instead of a directory. It must "
        "exist. Several instances may share it.",
    )
    endpoint: str = setting(
        ENDPOINT,
        "",
        "URL of the S3 server, with http:// or https://. Without it, AWS's own for the region.",
    )
    region: str = setting(
        REGION,
        "",
        "Region of the bucket. Without it, the one that AWS's own tools use, or else us-east-1, "
        "which servers that are not AWS accept.",
    )
    prefix: str = setting(
        PREFIX,
        "",
        "Beginning of the keys of all objects, such as caches/nix, if the bucket also holds other "
        "things.",
    )
    force_path_style: bool = setting(
        BOOLEAN,
        "false",
        "Put the bucket into the path of URLs instead of the host name. Most servers that are not "
        "AWS want this.",
    )
    access_key_id: str = setting(
        TEXT,
        "",
        "Access key ID of the credentials. Without it, ncps looks for credentials where AWS's own "
        "tools do: environment, profile, role.",
        is_secret=True,
    )
    secret_access_key: str = setting(
        TEXT,
        "",
        "Secret access key of the credentials.",
        is_secret=True,
    )
    session_token: str = setting(
        TEXT,
        "",
        "Session token that belongs to temporary credentials. It is not renewed when it expires.",
        is_secret=True,
    )
    storage_class: str = setting(
        STORAGE_CLASS,
        "",
        "Storage class of NARs, such as STANDARD_IA; objects of that class must be readable "
        "immediately. Without it, the server's default.",
    )
    server_side_encryption: str = setting(
        choice(("", "AES256", "aws:kms", "aws:kms:dsse")),
        "",
        "How the server encrypts objects at rest: AES256, aws:kms or aws:kms:dsse. Without it, "
        "the default of the bucket.",
    )
    kms_key_id: str = setting(
        TEXT,
        "",
        "Key of KMS to encrypt with, where --cache-storage-s3-server-side-encryption is aws:kms. "
        "Without it, the default of the bucket.",
    )
    connect_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "5s",
        "Time to connect to the S3 server.",
    )
    read_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "10s",
        "Time for which the S3 server may send nothing while ncps waits for an answer.",
    )
    max_attempts: int = setting(
        integer(at_least=1, at_most=20),
        "3",
        "Attempts at each request to the S3 server, the first one included. The pauses between "
        "them grow, and are some seconds in all.",
    )
    threads: int = setting(
        integer(at_least=4, at_most=1000),
        "32",
        "Threads of each worker that talk to the S3 server. A quarter of them may send uploads.",
    )
    queue_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "10s",
        "Time for which a request to the S3 server may wait for a thread, before its client gets "
        "503 with Retry-After.",
    )
    part_size_bytes: int = setting(
        size(at_least=5 << 20, at_most=1 << 30),
        "16M",
        "Size of the parts in which ncps uploads NARs; smaller NARs go in one request. Parts are "
        "larger if a NAR needs it, for NARs of up to 5T.",
    )
    redirect: bool = setting(
        BOOLEAN,
        "false",
        "Answer a request for a large stored NAR with a redirect to the S3 server, with a signed "
        "address that is valid for --cache-storage-s3-redirect-ttl. Clients must be able to reach "
        "the endpoint. The bytes then bypass the log, limits and rates of this cache.",
    )
    redirect_min_size_bytes: int = setting(
        SIZE,
        "8M",
        "Size of the smallest NAR that --cache-storage-s3-redirect redirects; ncps sends smaller "
        "ones itself, which is faster.",
    )
    redirect_ttl_s: float = setting(
        duration(at_least_s=10.0),
        "15m",
        "Time for which the address of a redirect is valid; a transfer that has begun may take "
        "longer.",
    )


@frozen(kw_only=True)
class StorageSettings:
    """The place of objects: a directory or a bucket.

    :ivar local: the directory; None if a bucket is used.
    """

    local: Path | None = setting(
        OPTIONAL_PATH,
        lambda around: str(around.state_dir / "storage"),
        "Directory that keeps NARs, narinfos and the signing key, unless "
        "--cache-storage-s3-bucket is set. ncps makes it if it is missing.",
        note="storage under $STATE_DIRECTORY or the user's state directory",
        aliases=(
            SettingNames(
                flag="cache-data-path", environment="CACHE_DATA_PATH", key="cache.data-path"
            ),
        ),
        bare=None,
    )
    min_free_bytes: int = setting(
        SIZE,
        "1G",
        "Room that downloads leave free on the file systems of the storage and of unfinished "
        "downloads, for the database and for other programs. The bytes that running downloads "
        "will still write count as used. A NAR for which there is no room is passed on to clients "
        "and not stored. The default is an amount and not a share of the disk, because the needs "
        "of other programs do not grow with the disk. If --cache-temp-path has a file system of "
        "its own, at most a tenth of that stays free. 0 to fill it.",
        note="1G, or a tenth of the file system if that is less",
        counted=True,
    )
    s3: S3Settings = branch(S3Settings, "Storage in S3")
