"""A Body in a local file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from threading import Event, Lock

from ncps.aio.nowait import READ_SIZE
from ncps.aio.unchanged_file import UnchangedFile
from ncps.errors import Unavailable
from ncps.ports import Segment
from ncps.storage.calls import Calls


class LocalBody:
    """A `ncps.ports.Body` of the bytes `start` to `stop` of an open file.

    :param file: the body owns and closes its descriptor.
    :param name: of the object.
    """

    def __init__(
        self, *, file: UnchangedFile, name: str, start: int, stop: int, calls: Calls
    ) -> None:
        self._file = file
        self._name = name
        self._start = start
        self._stop = stop
        self._calls = calls
        self._lock = Lock()  # else a descriptor could be closed and reused during a read
        self._reading = 0
        self._closed = Event()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._stop - self._start

    def segment(self) -> Segment | None:
        """Return all bytes as a segment of the file; None if only threads may read it."""
        if not self._calls.may_be_prompt or self._closed.is_set():
            return None
        return Segment(self._file.fd, self._start, self.size, self._read)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self._start
        while position < self._stop and not self._closed.is_set():
            data = await self._read(min(READ_SIZE, self._stop - position), position)
            if self._closed.is_set():
                return
            position += len(data)
            yield data

    async def _read(self, count: int, position: int) -> bytes:
        if self._closed.is_set():
            raise Unavailable(f"{self._name} was closed while it was read")
        if self._calls.may_be_prompt:
            data = self._read_now(count, position)
            if data is not None:
                return data
        return await self._calls.run(partial(self._read_blocking, count, position), line=self._name)

    def _read_now(self, count: int, position: int) -> bytes | None:
        began = self._calls.now()
        data = self._file.read_now(count, position)
        self._calls.took(self._calls.now() - began)
        return data

    def _read_blocking(self, count: int, position: int) -> bytes:
        with self._lock:
            if self._closed.is_set():
                return b""
            self._reading += 1
        try:
            return self._file.read(min(count, READ_SIZE), position)
        finally:
            with self._lock:
                self._reading -= 1
                if self._closed.is_set() and not self._reading:
                    os.close(self._file.fd)

    def close(self) -> None:
        """Close the file, or let a thread that reads close it; idempotent."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            if self._reading:
                return
        if self._calls.may_be_prompt:
            os.close(self._file.fd)
        else:
            self._calls.forget(partial(os.close, self._file.fd))
