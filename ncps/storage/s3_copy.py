"""Copies within a bucket: by the server, or, where it cannot, by way of this machine.

Ceph copies nothing that lies encrypted, for instance. What is copied is what was found wrong and is
set aside, so it happens seldom, and it need not be fast.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from ncps.errors import Conflict, NcpsError, Refused, Unavailable
from ncps.storage.s3_bucket import Bucket, md5_of
from ncps.storage.s3_errors import calling
from ncps.storage.s3_upload import part_size

PIECE: Final = 16 * 1024**2
"""Bytes that are held in memory at a time, of objects of up to 160 GB."""


def copy_blocking(
    bucket: Bucket,
    key: str,
    target: str,
    size: int,
    options: Mapping[str, object],
    largest: int,
) -> None:
    """Copy an object within the bucket, in parts of at most `largest` bytes.

    NotFound, StorageFull, Unavailable.
    """
    try:
        if size <= largest:
            bucket.copy(key, target, options)
            return
        _in_parts(
            bucket,
            target,
            size,
            largest,
            options,
            lambda upload, number, span: bucket.copy_part(target, upload, number, key, span),
        )
    except Refused:
        _carry(bucket, key, target, size, options, part_size(size, PIECE))


def _carry(
    bucket: Bucket, key: str, target: str, size: int, options: Mapping[str, object], piece: int
) -> None:
    """Read the object and write it elsewhere."""
    facts = bucket.stat(key)
    tag = "" if facts is None else facts.etag
    if size <= piece:
        data = _read(bucket, key, range(size), tag)
        bucket.put(target, data, md5_of(data), options)
        return

    def send(upload: str, number: int, span: range) -> str:
        data = _read(bucket, key, span, tag)
        return bucket.put_part(target, upload, number, io.BytesIO(data), md5_of(data))

    _in_parts(bucket, target, size, piece, options, send)


def _read(bucket: Bucket, key: str, span: range, tag: str) -> bytes:
    """Bytes of the object with this tag. NotFound, Unavailable."""
    if not span:
        return b""
    try:
        stream = bucket.open(key, span.start, span.stop, etag=tag).stream
    except Conflict as error:
        raise Unavailable(f"{bucket.name(key)} has changed while it was copied") from error
    try:
        with calling(bucket.name(key)):
            data: bytes = stream.read()
    finally:
        stream.close()
    return data


def _in_parts(
    bucket: Bucket,
    target: str,
    size: int,
    part: int,
    options: Mapping[str, object],
    send: Callable[[str, int, range], str],
) -> None:
    """Make an object of parts.

    :param send: sends one part: of which upload, which number, which bytes; returns its tag.
    """
    upload = bucket.begin(target, options)
    try:
        tags = [
            send(upload, number, range(start, min(start + part, size)))
            for number, start in enumerate(range(0, size, part), 1)
        ]
        bucket.complete(target, upload, tags)
    except BaseException:
        with suppress(NcpsError):
            bucket.abort(target, upload)
        raise
