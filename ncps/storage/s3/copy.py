"""Copies within a bucket: by the server, or, where it cannot, by way of this machine.

Ceph copies nothing that lies encrypted, for instance. What is copied is what was found wrong and is
set aside, so it happens seldom, and it need not be fast.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from ncps.errors import NcpsError, Refused
from ncps.storage.s3.bucket import Bucket, Facts, md5_of
from ncps.storage.s3.errors import calling
from ncps.storage.s3.upload import part_size

PIECE: Final = 16 * 1024**2
"""Bytes that are held in memory at a time, of objects of up to 160 GB."""


def copy_blocking(
    bucket: Bucket,
    key: str,
    target: str,
    facts: Facts,
    options: Mapping[str, object],
    largest: int,
) -> str:
    """Copy an object within the bucket, in parts of at most `largest` bytes; return the copy's tag.

    :param facts: of the object; Conflict if it is another one by now.
    :raises NotFound: StorageFull, Unavailable.
    """
    try:
        if facts.size <= largest:
            return bucket.copy(key, target, facts.etag, options)
        source = key, facts.etag
        return _in_parts(
            bucket,
            target,
            facts.size,
            largest,
            options,
            lambda upload, number, span: bucket.copy_part(target, upload, number, source, span),
        )
    except Refused:
        return _carry(bucket, key, target, facts, options, part_size(facts.size, PIECE))


def _carry(
    bucket: Bucket, key: str, target: str, facts: Facts, options: Mapping[str, object], piece: int
) -> str:
    """Read the object and write it elsewhere."""
    size, tag = facts.size, facts.etag
    if size <= piece:
        data = _read(bucket, key, range(size), tag)
        return bucket.put(target, data, md5_of(data), options)

    def send(upload: str, number: int, span: range) -> str:
        data = _read(bucket, key, span, tag)
        return bucket.put_part(target, upload, number, io.BytesIO(data), md5_of(data))

    return _in_parts(bucket, target, size, piece, options, send)


def _read(bucket: Bucket, key: str, span: range, tag: str) -> bytes:
    """Bytes of the object with this tag. NotFound, Conflict, Unavailable."""
    if not span:
        return b""
    stream = bucket.open(key, span.start, span.stop, etag=tag).stream
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
) -> str:
    """Make an object of parts; return its tag.

    :param send: sends one part: of which upload, which number, which bytes; returns its tag.
    """
    upload = bucket.begin(target, options)
    try:
        tags = [
            send(upload, number, range(start, min(start + part, size)))
            for number, start in enumerate(range(0, size, part), 1)
        ]
        return bucket.complete(target, upload, tags)
    except BaseException:
        with suppress(NcpsError):
            bucket.abort(target, upload)
        raise
