"""From a finished file on local disk to an object: in one request, or in parts.

Every request says the MD5 of its bytes, so that the server refuses what was damaged on its way, and
the SHA-256 of the whole is checked before there is an object: a spool that the disk has damaged is
never published. An upload in parts that fails is aborted; what a dead process leaves is swept.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Final

from attrs import frozen

from ncps.errors import Corrupt, NcpsError, StorageFull, Unavailable
from ncps.ports import Spooled
from ncps.storage.os_errors import reading
from ncps.storage.s3.bucket import Bucket

MOST_PARTS: Final = 10_000
LARGEST_OBJECT: Final = 5 * 1024**4
SMALLEST_PART: Final = 5 * 1024**2
"""What S3 takes; the last part may be smaller."""
_MIB: Final = 1024**2


def part_size(size: int, wanted: int) -> int:
    """Bytes per part: as wanted, or as much more as makes the parts few enough."""
    least = -(-size // MOST_PARTS)
    return max(wanted, -(-least // _MIB) * _MIB)


class _Piece(io.RawIOBase):
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
    """One file on its way to its key, all in one call for a thread.

    :param part: size of the parts, wanted; up to that size a file goes in one request.
    :param options: of the object, as S3 spells them.
    :param given_up: set by whoever lost interest; looked at between parts.
    """

    bucket: Bucket
    key: str
    source: Spooled
    part: int
    options: Mapping[str, object]
    given_up: Event

    def run_blocking(self) -> str:
        """Make the object; return its tag. Corrupt: the file is not what it is said to be.

        StorageFull, Unavailable.
        """
        size = self.source.size
        if size > LARGEST_OBJECT:
            raise StorageFull(f"{self.bucket.name(self.key)}: {size} bytes are more than S3 takes")
        with _opened(self.source.path) as fd:
            with reading(str(self.source.path)):
                actual = os.fstat(fd).st_size
            if actual != size:
                raise Corrupt(f"{self.source.path} has {actual} bytes, not {size}")
            step = part_size(size, self.part)
            whole = hashlib.sha256()
            if size <= step:
                piece = _Piece(fd, 0, size)
                md5 = self._digest(piece, whole)
                self._check(whole.digest())
                return self.bucket.put(self.key, piece, md5, self.options)
            return self._in_parts(fd, step, whole)

    def _in_parts(self, fd: int, step: int, whole: hashlib._Hash) -> str:
        upload = self.bucket.begin(self.key, self.options)
        try:
            tags = []
            for number, start in enumerate(range(0, self.source.size, step), 1):
                if self.given_up.is_set():
                    raise Unavailable(f"{self.bucket.name(self.key)}: the upload was given up")
                piece = _Piece(fd, start, min(start + step, self.source.size))
                md5 = self._digest(piece, whole)
                tags.append(self.bucket.put_part(self.key, upload, number, piece, md5))
            self._check(whole.digest())
            return self.bucket.complete(self.key, upload, tags)
        except BaseException:
            with suppress(NcpsError):  # what cannot be aborted now is swept later
                self.bucket.abort(self.key, upload)
            raise

    def _digest(self, piece: _Piece, whole: hashlib._Hash) -> str:
        """Feed the hash of the whole; return Content-MD5 of the piece, ready to be read."""
        own = hashlib.md5(usedforsecurity=False)
        with reading(str(self.source.path)):
            while data := piece.read(_MIB):
                own.update(data)
                whole.update(data)
        piece.seek(0)
        return base64.b64encode(own.digest()).decode()

    def _check(self, digest: bytes) -> None:
        if digest != self.source.sha256.digest:
            raise Corrupt(f"{self.source.path} does not have the hash it is said to have")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with reading(str(path)):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
