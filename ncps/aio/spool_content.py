"""The bytes of a spool: in its file, and in memory those that the disk does not take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from ncps.aio.nowait import READ_SIZE
from ncps.aio.spool_file import SpoolDisk, SpoolFile
from ncps.aio.threads import Threads
from ncps.ports import Segment

APART: Final = 256 * 1024
"""Bytes of a batch from which on a second thread saves more time than it costs."""


class SpoolWindow:
    """The newest bytes of a spool, which are not in its file.

    :ivar start: offset of the first of them in the spool.
    """

    def __init__(self) -> None:
        self.start = 0
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data)

    @property
    def end(self) -> int:
        """Offset behind the last of them."""
        return self.start + len(self.data)

    def add(self, data: memoryview, position: int) -> None:
        """Append bytes.

        :param position: their offset in the spool; it is `end`, unless the window is empty.
        """
        if not self.data:
            self.start = position
        self.data += data

    def drop_before(self, position: int) -> None:
        """Drop all bytes before an offset."""
        start = max(self.start, min(position, self.end))
        del self.data[: start - self.start]
        self.start = start

    def keep_from(self, positions: Collection[int]) -> None:
        """Drop all bytes before the smallest of these offsets; all bytes, if there is none."""
        self.drop_before(min(positions, default=self.end))

    def read(self, position: int, count: int) -> bytes:
        """Return at most `count` bytes from an offset within the window."""
        start = position - self.start
        with memoryview(self.data) as window:
            return bytes(window[start : start + count])

    def clear(self) -> None:
        """Drop all bytes."""
        self.data.clear()


class SpoolContent:
    """All bytes that a spool has so far.

    :param file: opens the file, blocking; None: there is none.
    :param feeds: each takes every byte, in order, in a thread.
    :param idle: called when a read of the file has ended.
    :param keep_error: the reason if there is no file.
    :ivar length: bytes that have come.
    """

    def __init__(
        self,
        file: Callable[[], SpoolFile] | None,
        workers: Threads,
        feeds: tuple[Callable[[bytes], object], ...],
        idle: Callable[[], object],
        keep_error: str,
    ) -> None:
        self.length = 0
        self.disk = SpoolDisk(file, workers, idle=idle, trouble=keep_error)
        self.window = SpoolWindow()
        self._feeds = feeds
        self._workers = workers

    @property
    def _passed(self) -> int:  # bytes before this offset are in the file or lost
        return self.window.start if self.window else self.length

    def has(self, start: int) -> bool:
        """Return whether all bytes from this offset on can be read, now or when they come."""
        return start >= self._passed or self.disk.length >= self._passed

    async def store(self, pieces: Sequence[bytes], *, apart: bool = False) -> tuple[int, str]:
        """Hash and write one batch; return how many bytes were written, and why not all.

        :param apart: whether each further digest of a large batch gets a thread of its own.
        """
        if not apart or len(self._feeds) < 2 or size_of(pieces) < APART:
            return await self._workers.run(self._store_blocking, self._feeds, pieces)
        first, *others = self._feeds
        jobs = [Deferred.fromCoroutine(self._workers.run(_feed, feed, pieces)) for feed in others]
        feeding: Deferred[Any] = DeferredList(jobs, consumeErrors=True)
        try:
            stored = await self._workers.run(self._store_blocking, (first,), pieces)
        finally:
            outcomes = await feeding  # also after an error: the caller may close all files next
        for is_fed, outcome in outcomes:
            if not is_fed:
                raise outcome.value
        return stored

    def _store_blocking(
        self, feeds: Sequence[Callable[[bytes], object]], pieces: Sequence[bytes]
    ) -> tuple[int, str]:
        for feed in feeds:
            _feed(feed, pieces)
        return self.disk.append_blocking(pieces)

    def stored(self, pieces: Sequence[bytes], written: int, keep_error: str) -> None:
        """Apply the result of `store`; the caller increases `length` afterwards."""
        self.disk.length += written
        self.disk.trouble = self.disk.trouble or keep_error
        position, skip = self.length, written
        for piece in pieces:
            if skip < len(piece):
                self.window.add(memoryview(piece)[skip:], position + skip)
            position += len(piece)
            skip = max(0, skip - len(piece))

    async def reread(self, feed: Callable[[bytes], object]) -> None:
        """Feed all bytes once more to a function, in a thread; all must lie in the file."""
        position = 0
        while position < self.length:
            position = await self.disk.run(self._feed_blocking, feed, position)

    def _feed_blocking(self, feed: Callable[[bytes], object], position: int) -> int:
        data = self.disk.read_blocking(position)
        feed(data)
        return position + len(data)

    async def read(self, position: int, limit: int) -> bytes:
        """Return bytes from `position`, at most up to `limit`; both lie within the spool."""
        count = min(READ_SIZE, limit - position)
        if position < self.disk.length:
            return await self.disk.read(count, position)
        return self.window.read(position, count)

    def segment(self, position: int, limit: int) -> Segment | None:
        """Return where bytes from `position` to `limit` lie in the file; None: in the window."""
        if position < self.disk.length:
            return self.disk.segment(position, limit - position)
        return None

    def close(self) -> None:
        """Drop the window, and close the file in the background."""
        self.window.clear()
        self.disk.close()


def size_of(pieces: Sequence[bytes]) -> int:
    """Return how many bytes a batch has."""
    return sum(map(len, pieces))


def _feed(feed: Callable[[bytes], object], pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        feed(piece)
