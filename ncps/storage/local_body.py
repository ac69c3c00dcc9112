"""A Body that lies in a local file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from threading import Event, Lock
from typing import Final

from ncps.ports import Segment
from ncps.still import StillFile
from ncps.workers import Threads

READ_SIZE: Final = 256 * 1024
"""One read: long enough to be cheap, short enough for the reactor's thread on a local disk."""


class LocalBody:
    """Bytes `start` to `stop` of an open file; see `ncps.ports.Body`.

    :param fd: owned and closed by the body.
    :param name: of the object, for messages.
    :param workers: where the reads run; None: on the calling thread.
    """

    def __init__(
        self, *, fd: int, name: str, start: int, stop: int, workers: Threads | None
    ) -> None:
        self._fd = fd
        self._file = StillFile(fd, name)
        self._start = start
        self._stop = stop
        self._workers = workers
        self._lock = Lock()  # a descriptor must not be closed, and used anew, under a running read
        self._is_reading = False
        self._closed = Event()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._stop - self._start

    def segment(self) -> Segment | None:
        """The whole as a piece of the file; None where reads must not happen on this thread."""
        if self._workers is not None or self._closed.is_set():
            return None
        return Segment(self._fd, self._start, self.size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self._start
        while position < self._stop and not self._closed.is_set():
            count = min(READ_SIZE, self._stop - position)
            if self._workers is None:
                data = self._read_blocking(count, position)
            else:
                data = await self._workers.run(self._read_blocking, count, position)
            if self._closed.is_set():
                return
            position += len(data)
            yield data

    def _read_blocking(self, count: int, position: int) -> bytes:
        with self._lock:
            if self._closed.is_set():
                return b""
            self._is_reading = True
        try:
            return self._file.read(count, position)
        finally:
            with self._lock:
                self._is_reading = False
                if self._closed.is_set():
                    os.close(self._fd)

    def close(self) -> None:
        """Close the file, or let the read under way in a thread close it; idempotent."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            if not self._is_reading:
                os.close(self._fd)
