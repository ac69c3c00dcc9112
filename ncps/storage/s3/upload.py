"""Upload: sends a finished file on local disk to a bucket, in one request or in parts.

Every request has the MD5 of its bytes, so that the server refuses bytes that were damaged on their
way. The SHA-256 of the whole is checked before the object exists, so a spool that the disk has
damaged is never published. A failed upload in parts is aborted; a sweep removes the parts of a dead
process.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

from attrs import field, frozen

from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Spooled
from ncps.storage.os_errors import reading
from ncps.storage.s3.bucket import Bucket
from ncps.storage.s3.parts import in_parts, part_size

LARGEST_OBJECT: Final = 5 * 1024**4
"""Bytes of an object in S3, at most."""
LARGEST_COPY: Final = 5 * 1024**3
"""Bytes that one request can copy; a larger object is copied in parts."""
NAR_TYPE: Final = "application/x-nix-nar"
_MIB: Final = 1024**2


@frozen
class UploadOptions:
    """The options for large objects that are sent and copied.

    :param part: bytes of a part; a file of up to that size is sent in one request.
    :param options: of each object, in S3's spelling, such as its storage class.
    :param largest_copy: bytes that one request may copy.
    """

    part: int
    options: Mapping[str, str] = field(factory=dict)
    largest_copy: int = LARGEST_COPY

    @property
    def of_object(self) -> Mapping[str, Any]:
        """Properties of an object that is a NAR."""
        return {"ContentType": NAR_TYPE, **self.options}

    def of_nar(self, sha256: Hash) -> Mapping[str, Any]:
        """Return the properties of an object that is a NAR file with this hash."""
        return {**self.of_object, "Metadata": {"sha256": sha256.digest.hex()}}


class _FilePiece(io.RawIOBase):
    """A part of an open file as a file; reading it does not move the file's own position."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd = fd
        self._start = start
        self._stop = stop
        self._position = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._position, os.SEEK_END: self._stop}
        self._position = base[whence] + offset
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._stop - self._position)
        count = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._fd, count, self._position)
        self._position += len(data)
        return data


@frozen(kw_only=True)
class Upload:
    """The upload of one file, in one call for a thread.

    :param given_up: set if the caller no longer waits; the thread checks it between parts.
    """

    bucket: Bucket
    key: str
    source: Spooled
    options: UploadOptions
    given_up: Event

    def run_blocking(self) -> str:
        """Make the object; return its tag.

        Raises Corrupt if the file has another size or hash than `source` says, StorageFull if
        nothing may be written, Unavailable if it fails now.
        """
        size = self.source.size
        if size > LARGEST_OBJECT:
            raise StorageFull(f"{self.bucket.name(self.key)}: {size} bytes are too many for S3")
        with _opened(self.source.path) as fd:
            with reading(str(self.source.path)):
                actual = os.fstat(fd).st_size
            if actual != size:
                raise Corrupt(f"{self.source.path} has {actual} bytes, not {size}")
            step = part_size(size, self.options.part)
            whole = hashlib.sha256()
            if size <= step:
                piece = _FilePiece(fd, 0, size)
                md5 = self._digest(piece, whole)
                self._check(whole.digest())
                return self.bucket.put(self.key, piece, md5, self._properties)
            return self._in_parts(fd, step, whole)

    @property
    def _properties(self) -> Mapping[str, Any]:
        return self.options.of_nar(self.source.sha256)

    def _in_parts(self, fd: int, step: int, whole: hashlib._Hash) -> str:
        with in_parts(self.bucket, self.key, self._properties) as parts:
            for start in range(0, self.source.size, step):
                if self.given_up.is_set():
                    raise Unavailable(f"{self.bucket.name(self.key)}: the upload was given up")
                piece = _FilePiece(fd, start, min(start + step, self.source.size))
                parts.put(piece, self._digest(piece, whole))
            self._check(whole.digest())
            return parts.complete()

    def _digest(self, piece: _FilePiece, whole: hashlib._Hash) -> str:
        """Add a piece to the hash of the whole; return its Content-MD5, and rewind it."""
        own = hashlib.md5(usedforsecurity=False)
        with reading(str(self.source.path)):
            while data := piece.read(_MIB):
                own.update(data)
                whole.update(data)
        piece.seek(0)
        return base64.b64encode(own.digest()).decode()

    def _check(self, digest: bytes) -> None:
        if digest != self.source.sha256.digest:
            raise Corrupt(f"{self.source.path} has another hash than when it was written")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with reading(str(path)):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
