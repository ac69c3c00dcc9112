"""The probe of a bucket at the start, and the sweep of remains of earlier processes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from ncps.errors import NcpsError, Refused, Unavailable
from ncps.storage import keys
from ncps.storage.s3.bucket import Bucket, md5_of
from ncps.storage.s3.errors import Denied

ABANDONED_AFTER: Final = timedelta(days=1)
"""Age of an upload in parts after which no process can still send parts of it."""

_PRIVILEGES: Final = (
    "s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket"
)


def probe_blocking(bucket: Bucket, options: Mapping[str, str]) -> None:
    """Write an object, read it, remove it, and look for it again, as the stores will.

    Raises Refused, StorageFull or Unavailable with the reason and the remedy.

    :param options: of NARs, in S3's spelling.
    """
    try:
        _try(bucket, keys.probe_key(secrets.token_hex(8)), options)
    except Denied as error:
        raise Refused(f"{error}; needed are {_PRIVILEGES}") from error


def _try(bucket: Bucket, key: str, options: Mapping[str, str]) -> None:
    data = key.encode()
    bucket.put(key, data, md5_of(data), options)
    try:
        if bucket.read(key) != data:
            raise Refused(f"{bucket.name(key)}: the bytes read differ from those written")
    finally:
        bucket.delete(key)
    try:
        is_there = bucket.stat(key) is not None
    except Unavailable as error:
        # Without permission to list, AWS answers 403 for an absent object.
        raise Refused(f"{error}; needed are {_PRIVILEGES}") from error
    if is_there:
        raise Refused(f"{bucket.name(key)}: the removed object is still there")
    bucket.page(f"{keys.PROBES}/")


def sweep_blocking(bucket: Bucket) -> int:
    """Abort old uploads in parts, and remove old probes; return how many."""
    before = datetime.now(UTC) - ABANDONED_AFTER
    count = 0
    with suppress(NcpsError):  # some servers do not list uploads
        for key, upload, begun in bucket.uploads("store/"):
            if begun < before:
                bucket.abort(key, upload)
                count += 1
    with suppress(NcpsError):
        probes, _ = bucket.page(f"{keys.PROBES}/")
        for probe in probes:
            if probe.modified < before:
                bucket.delete(probe.key)
                count += 1
    return count
