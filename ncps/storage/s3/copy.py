"""Copies within a bucket: by the server or, if it refuses, by this machine.

Ceph, for instance, copies no encrypted object. ncps copies a wrong NAR into the quarantine, and a
NAR that gets a second name. Both are rare and need not be fast.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from ncps.errors import Refused
from ncps.storage.s3.bucket import Bucket, Facts, md5_of
from ncps.storage.s3.errors import calling
from ncps.storage.s3.parts import in_parts, part_size
from ncps.storage.s3.upload import UploadOptions

PIECE: Final = 16 * 1024**2
"""Bytes in memory at one time, for objects of up to 160 GB."""


def copy_blocking(bucket: Bucket, source: Facts, target: str, uploads: UploadOptions) -> str:
    """Copy an object within the bucket; return the copy's tag.

    Raises NotFound if the object is absent, Conflict if it has another tag, StorageFull if nothing
    may be written, Unavailable if it fails now.
    """
    try:
        if source.size <= uploads.largest_copy:
            return bucket.copy(source.key, target, source.tag, uploads.of_object)
        with in_parts(bucket, target, uploads.of_object) as parts:
            for span in _spans(source.size, uploads.largest_copy):
                parts.copy(source, span)
            return parts.complete()
    except Refused:
        return _carry(bucket, source, target, uploads.of_object)


def _carry(bucket: Bucket, source: Facts, target: str, options: Mapping[str, Any]) -> str:
    """Read an object and write it under another key; return the copy's tag."""
    piece = part_size(source.size, PIECE)
    if source.size <= piece:
        data = _read(bucket, source, range(source.size))
        return bucket.put(target, data, md5_of(data), options)
    with in_parts(bucket, target, options) as parts:
        for span in _spans(source.size, piece):
            data = _read(bucket, source, span)
            parts.put(io.BytesIO(data), md5_of(data))
        return parts.complete()


def _read(bucket: Bucket, source: Facts, span: range) -> bytes:
    """Return bytes of the object.

    Raises NotFound if it is absent, Conflict if it has another tag, Unavailable if it fails now.
    """
    if not span:
        return b""
    stream = bucket.open(source.key, span.start, span.stop, etag=source.tag).stream
    try:
        with calling(bucket.name(source.key)):
            data: bytes = stream.read()
    finally:
        stream.close()
    return data


def _spans(size: int, part: int) -> list[range]:
    """Return the range of each part."""
    return [range(start, min(start + part, size)) for start in range(0, size, part)]
