"""A Body in S3: threads read it, slightly ahead, and resume it where a connection broke.

Each read is a call in a thread. While the reader uses one piece, a thread fetches the next one. At
most `AHEAD` bodies of a store do so: slow readers must not hold two pieces each. A reader that
waits for S3 gets larger pieces, because fewer calls cost less; it does not hold them for long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from twisted.internet.defer import Deferred

from ncps.aio.threads import Threads
from ncps.ports import Segment
from ncps.storage.s3.source import READ_SIZE, S3Source

LARGE_READ_SIZE: Final = 1024 * 1024
"""Bytes of one read for a reader that is faster than S3."""


class Ahead:
    """The number of further bodies that may read ahead; all bodies of a store share it."""

    def __init__(self, size: int) -> None:
        self._free = size

    def take(self) -> bool:
        """Count one more body that reads ahead; return False if there are too many."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """Count one body less."""
        self._free += 1


class S3Body:
    """A `ncps.ports.Body` of the bytes of an object.

    :param first: the first bytes, which were read together with the opening.
    """

    def __init__(self, source: S3Source, *, first: bytes, workers: Threads, ahead: Ahead) -> None:
        self._source = source
        self._first = first
        self._size = len(first) + source.left
        self._workers = workers
        self._ahead = ahead
        self._reading: Deferred[bytes] | None = None
        self._is_ahead = False
        self._piece = READ_SIZE
        self._is_closed = False

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def segment(self) -> Segment | None:
        """Return None: the bytes lie in no local file."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        data, self._first = self._first, b""
        left = self._size
        while left and not self._is_closed:
            data = data or await self._next()
            if not data:  # closed during the read
                return
            left -= len(data)
            if left and self._reading is None and self._ahead.take():
                self._is_ahead = True
                self._reading = self._start()
            yield data
            data = b""

    def _start(self) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._workers.run(self._source.read_blocking, self._piece))

    async def _next(self) -> bytes:
        if self._reading is None:
            self._reading = self._start()
        else:
            self._piece = READ_SIZE if self._reading.called else LARGE_READ_SIZE
        try:
            return await self._reading
        finally:
            self._reading = None
            self._give_ahead()

    def _give_ahead(self) -> None:
        if self._is_ahead:
            self._is_ahead = False
            self._ahead.give()

    def close(self) -> None:
        """Stop reading, and close the source; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._first = b""
        self._give_ahead()
        reading = self._reading
        if reading is not None:
            reading.addErrback(lambda _: None)  # no reader waits for the result
            reading.cancel()
        self._source.close()
