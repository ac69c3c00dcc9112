"""A Body that lies in S3: read in threads, a little ahead, and taken up again where it broke off.

Each read is a hop into a thread. While the reader works on one piece the next is fetched, but only
for so many bodies at once: a crowd of slow readers must not hold two pieces each. A reader that is
found waiting for S3 gets larger pieces, which cost less each; it does not hold them for long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from threading import Lock
from typing import Final

from twisted.internet.defer import Deferred

from ncps.aio.threads import Threads
from ncps.errors import Conflict, Corrupt, NotFound, Unavailable
from ncps.ports import Segment
from ncps.storage.s3.bucket import Opened
from ncps.storage.s3.errors import OutOfRange, calling

READ_SIZE: Final = 256 * 1024
"""One read: far more than a hop into a thread costs, little enough to hold for each reader."""
LARGE_READ_SIZE: Final = 1024 * 1024
"""One read for a reader that is quicker than S3."""


class Ahead:
    """How many bodies may read ahead at once; shared by all of a store."""

    def __init__(self, size: int) -> None:
        self._free = size

    def take(self) -> bool:
        """Whether one more may."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """One less does."""
        self._free += 1


class Opening:
    """What a thread opens for somebody who may have left before it was done: then it is closed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._source: S3Source | None = None
        self._is_abandoned = False

    def done_blocking(self, source: S3Source) -> None:
        """Hand over what was opened."""
        with self._lock:
            self._source = source
            is_abandoned = self._is_abandoned
        if is_abandoned:
            source.close()

    def abandon(self) -> None:
        """Leave."""
        with self._lock:
            self._is_abandoned = True
            source = self._source
        if source is not None:
            source.close()


class S3Source:
    """Bytes `start` to `stop` of one object, read by one thread at a time.

    :param opened: the first answer; the source closes it.
    :param reopen: asks for the bytes from here on once more, if they are still the same.
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
        self._lock = Lock()  # a stream must not be closed under a running read
        self._is_reading = False
        self._is_closed = False

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return self._stop - self._position

    def read_blocking(self, size: int = READ_SIZE) -> bytes:
        """The next piece; nothing at the end, or after `close`. Unavailable, Corrupt."""
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
        """Read; after a failure ask once for the rest, since the server may be back already."""
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
        """Give the connection up, at once or after the read under way; idempotent."""
        with self._lock:
            self._is_closed = True
            if not self._is_reading:
                self._end()

    def _end(self) -> None:
        with suppress(OSError):
            self._stream.close()


class S3Body:
    """See the module and `ncps.ports.Body`.

    :param first: what was read with the opening; it belongs to the body's bytes.
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
        """None: the bytes lie elsewhere."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        data, self._first = self._first, b""
        left = self._size
        while left and not self._is_closed:
            data = data or await self._next()
            if not data:  # closed meanwhile
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
        """Give up the source; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._first = b""
        self._give_ahead()
        reading = self._reading
        if reading is not None:
            reading.addErrback(lambda _: None)  # nobody will ask what came of it
            reading.cancel()
        self._source.close()
