"""The bytes of an object of S3; threads read them, and resume once if the connection breaks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final

from ncps.errors import Conflict, Corrupt, NotFound, Unavailable
from ncps.storage.s3.bucket import Opened
from ncps.storage.s3.errors import OutOfRange, calling

READ_SIZE: Final = 256 * 1024
"""Bytes of one read: enough to be worth a call in a thread, few enough for each reader."""


class S3Source:
    """The bytes `start` to `stop` of one object, read by one thread at a time.

    :param opened: the first answer; the source closes it.
    :param reopen: requests the bytes from a position on again, if the object is still the same.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        name: str,
        start: int,
        stop: int,
        reopen: Callable[[int], Opened],
    ) -> None:
        self._stream = opened.stream
        self._name = name
        self._position = start
        self._stop = stop
        self._reopen = reopen
        self._lock = Lock()  # a stream must not be closed during a read
        self._is_reading = False
        self._is_closed = False

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return self._stop - self._position

    def read_blocking(self, size: int = READ_SIZE) -> bytes:
        """Return the next piece; b"" at the end or after `close`.

        Raises Corrupt if the object was replaced or removed, Unavailable if it cannot be read now.
        """
        with self._lock:
            if self._is_closed or not self.left:
                return b""
            self._is_reading = True
        try:
            data = self._read_or_resume(min(size, self.left))
            self._position += len(data)
            return data
        finally:
            with self._lock:
                self._is_reading = False
                if self._is_closed or not self.left:
                    self._end()

    def _read_or_resume(self, size: int) -> bytes:
        """Read; after a failure request the rest once, because the server may be back already."""
        try:
            return self._read(size)
        except Unavailable:
            self._stream.close()
        try:
            self._stream = self._reopen(self._position).stream
        except (NotFound, Conflict, OutOfRange) as error:
            raise Corrupt(f"{self._name} was replaced or removed while it was read") from error
        return self._read(size)

    def _read(self, size: int) -> bytes:
        with calling(self._name):
            data: bytes = self._stream.read(size)
        if not data:
            raise Unavailable(f"{self._name} ended {self.left} bytes early")
        return data

    def close(self) -> None:
        """Close the connection, now or after a running read; idempotent."""
        with self._lock:
            self._is_closed = True
            if not self._is_reading:
                self._end()

    def _end(self) -> None:
        with suppress(OSError):
            self._stream.close()
