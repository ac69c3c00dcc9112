"""The stores in an S3 bucket; imported only if one is configured, since boto3 loads slowly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.places import remedy
from ncps.aio.threads import Workers
from ncps.assembly.storage import Stores, volume
from ncps.errors import Refused
from ncps.settings.schema.storage import S3Settings
from ncps.settings.schema.tree import Settings
from ncps.storage.room import Room
from ncps.storage.s3.blobs import Redirect, S3Blobs
from ncps.storage.s3.bucket import Bucket, BucketAccess, connect
from ncps.storage.s3.probe import probe_blocking, sweep_blocking
from ncps.storage.s3.requests import BucketRequests
from ncps.storage.s3.upload import UploadOptions
from ncps.storage.stores import (
    BlobConfigStore,
    BlobExtraStore,
    BlobNarInfoStore,
    BlobNarStore,
    BlobRealisationStore,
)
from ncps.storage.temps import Temps
from ncps.upstream.proxies import is_this_machine

QUEUE: Final = 10_000
"""Requests, and uploads, that may wait for a thread. Each belongs to a client or to a
download, and the numbers of both have limits of their own."""
UPLOAD_PATIENCE_S: Final = 600.0
"""Seconds for which a finished download may wait for its upload before it is dropped."""


def access(settings: S3Settings) -> BucketAccess:
    """Return the access to the bucket."""
    return BucketAccess(
        bucket=settings.bucket,
        endpoint=settings.endpoint,
        region=settings.region,
        prefix=settings.prefix,
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key,
        session_token=settings.session_token,
        force_path_style=settings.force_path_style,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        attempts=settings.max_attempts,
        connections=settings.threads,
        encryption=settings.server_side_encryption,
        kms_key_id=settings.kms_key_id,
        is_direct=is_this_machine(urlsplit(settings.endpoint).hostname or ""),
    )


def holds_blocking(settings: S3Settings, base: str) -> bool:
    """Whether the bucket has an object whose key begins with `base`.

    Raises Unavailable or Refused if the bucket cannot be listed.
    """
    way = access(settings)
    bucket = Bucket(connect(way), way)
    try:
        found, _ = bucket.page(base)
    finally:
        bucket.close()
    return bool(found)


def in_bucket(reactor: Any, settings: Settings) -> Stores:
    """Make the stores; they open nothing yet.

    Raises Unavailable if AWS's own configuration files cannot be read.
    """
    s3 = settings.cache.storage.s3
    assert settings.cache.temp_path is not None, "decided when the settings were read"
    spools = Temps(settings.cache.temp_path)
    way = access(s3)
    bucket = Bucket(connect(way), way)
    workers = Workers(reactor, "s3", s3.threads)
    requests = _requests(reactor, bucket, workers, s3)
    options = {"StorageClass": s3.storage_class} if s3.storage_class else {}
    blobs = S3Blobs(
        clock=reactor,
        requests=requests,
        uploads=UploadOptions(s3.part_size_bytes, options),
        redirect=Redirect(min_size=s3.redirect_min_size_bytes, ttl_s=s3.redirect_ttl_s)
        if s3.redirect
        else None,
    )

    def probe() -> None:
        _make(spools.directory)
        probe_blocking(bucket, options)

    def sweep(age_s: float) -> int:
        return sweep_blocking(bucket) + spools.sweep(age_s)

    return Stores(
        spools=spools,
        nars=BlobNarStore(blobs),
        narinfos=BlobNarInfoStore(blobs),
        extras=BlobExtraStore(blobs),
        realisations=BlobRealisationStore(blobs),
        config=BlobConfigStore(blobs),
        room=Room(volume(settings, spools.directory)),
        probe=probe,
        sweep=sweep,
        mend=spools.mend,
        threads=(workers,),
        disconnect=bucket.close,
    )


def _requests(
    reactor: Any, bucket: Bucket, workers: Workers, settings: S3Settings
) -> BucketRequests:
    """Divide the threads: a quarter may send uploads."""
    uploads = max(1, settings.threads // 4)
    return BucketRequests(
        bucket=bucket,
        workers=workers,
        slots=Bulkhead(
            reactor,
            "a thread for S3",
            size=settings.threads - uploads,
            queue=QUEUE,
            patience_s=settings.queue_timeout_s,
        ),
        uploads=Bulkhead(
            reactor,
            "an upload to S3",
            size=uploads,
            queue=QUEUE,
            patience_s=UPLOAD_PATIENCE_S,
        ),
    )


def _make(directory: Path) -> None:
    """Make the directory of unfinished downloads, private like a store."""
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"cache-temp-path: {directory} cannot be made: {error.strerror};"
            f" {remedy('cache-temp-path', error)}"
        ) from error
