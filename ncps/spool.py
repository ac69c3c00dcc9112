"""Spool: a growing file with one writer and many readers at any offset, each at its own pace.

    writer --> queue --(one thread job at a time: write + hash)--> file ------> readers (pread)
                                                          \\--> window (only when the disk failed)

The writer hands over chunks and waits only when too much is queued. A batch is written and
hashed in one thread job, batches strictly in order; readers are woken once per batch. The last
`HOLD_BACK` bytes of every reader wait for `commit`: a reader whose bytes turn out wrong raises
instead of ending, so a corrupt or cut source can never look complete.

When the file cannot take more (full or read-only disk) the spool streams through: what comes
after lives in a bounded window in memory until the slowest reader has passed it, and the writer
waits for that reader. Such a spool cannot be published; `keep_error` says why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred

from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Segment, Spooled
from ncps.workers import Threads

HOLD_BACK = 64 * 1024
READ_SIZE = 256 * 1024
QUEUE_HIGH = 8 * 1024 * 1024
QUEUE_LOW = 4 * 1024 * 1024
BATCH_LIMIT = 2 * 1024 * 1024
WINDOW_HIGH = 4 * 1024 * 1024


class Digest(Protocol):
    """Something that follows the bytes; `feed` runs in a thread, never twice at once."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises `Corrupt` to end the spool."""


class SpoolFile(Protocol):
    """An open, empty, private file."""

    @property
    def fd(self) -> int:
        """The descriptor, open for reading and writing."""

    @property
    def path(self) -> Path:
        """Where the file lies."""

    def discard(self) -> None:
        """Unlink the file unless it was taken over (renamed) meanwhile."""

    def close(self) -> None:
        """Close the descriptor; once."""


class Overtaken(Unavailable):
    """The bytes asked for have passed through without being kept; only a new fetch has them."""


class Abandoned(NcpsError):
    """The bytes can neither be kept nor has anybody stayed to read them."""


@frozen
class _Piece:
    offset: int
    data: bytes

    @property
    def stop(self) -> int:
        return self.offset + len(self.data)


@define(eq=False)
class _Wakeups:
    """Everybody who waits for the next change."""

    _waiters: list[Deferred[None]]

    async def next(self) -> None:
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters.append(waiter)
        await waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiters:  # not there while `fire` goes through them
            self._waiters.remove(waiter)

    def fire(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)


class Spool:
    """See the module.

    The writer calls `write` again and again, `flush`, `commit` or `fail`, and at last `release`.

    :param file: where the bytes go, or None to stream through from the first byte.
    :param workers: runs the batches.
    :param digests: follow every byte, in order.
    :param total: size of the whole, if known; lets readers go on up to its last HOLD_BACK bytes.
    :param keep_error: why there is no file, where there is none.
    """

    def __init__(
        self,
        *,
        file: SpoolFile | None,
        workers: Threads,
        digests: tuple[Digest, ...],
        total: int | None,
        keep_error: str = "",
    ) -> None:
        self.total = total
        self.length = 0
        self.keep_error = keep_error if file is None else ""
        self._file = file
        self._workers = workers
        self._digests = digests
        self._file_length = 0
        self._queue: list[bytes] = []
        self._queued = 0
        self._is_busy = False
        self._window: deque[_Piece] = deque()
        self._window_size = 0
        self._broken: BaseException | None = None
        self._error: BaseException | None = None
        self._is_committed = False
        self._is_released = False
        self._readers: set[SpoolReader] = set()
        self._grown = _Wakeups([])
        self._drained = _Wakeups([])

    # The writer's side

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far lie in the file."""
        return self._file is not None and not self.keep_error

    @property
    def error(self) -> BaseException | None:
        """What went wrong with the spool itself, as far as its writer can know."""
        return self._broken

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._readers)

    async def write(self, data: bytes) -> None:
        """Append bytes; waits while too much is queued. Raises what ended the spool."""
        self._check()
        self._queue.append(data)
        self._queued += len(data)
        self._kick()
        if self._queued > QUEUE_HIGH:
            while self._queued > QUEUE_LOW:
                await self._drained.next()
                self._check()

    async def flush(self) -> None:
        """Wait until everything handed over is written and hashed."""
        while self._is_busy or self._queue:
            self._check()
            await self._drained.next()
        self._check()

    def commit(self) -> None:
        """Let readers have the end: everything is there and right."""
        self.total = self.length
        self._is_committed = True
        self._grown.fire()

    def fail(self, error: BaseException) -> None:
        """End the spool: readers and the writer raise this error. Only the first one counts."""
        if self._error is None and not self._is_committed:
            self._error = error
            self._broken = self._broken or error
            self._grown.fire()
            self._drained.fire()

    def _break(self, error: BaseException) -> None:
        """Let the writer know; what the readers are told is the writer's decision."""
        self._broken = self._broken or error
        self._drained.fire()

    def spooled(self, sha256: Hash) -> Spooled:
        """Name the file for publication; only after `flush`, and only if `is_kept`."""
        assert self._file is not None
        return Spooled(path=self._file.path, size=self.length, sha256=sha256)

    def release(self) -> None:
        """Say that the writer needs the spool no more: it goes with its last reader."""
        self._is_released = True
        if self._file is not None:
            self._file.discard()
        self._close_if_unused()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken.with_traceback(None)

    def _kick(self) -> None:
        if self._is_busy or not self._queue or self._broken is not None:
            return
        if self._window_size > WINDOW_HIGH:
            if not self._readers:
                self._break(Abandoned("nobody reads the bytes and they cannot be kept"))
            return  # a reader that moves on kicks again
        batch: list[bytes] = []
        size = 0
        while self._queue and size < BATCH_LIMIT:
            size += len(self._queue[0])
            batch.append(self._queue.pop(0))
        self._is_busy = True
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        job = Deferred.fromCoroutine(self._workers.run(self._store_blocking, data))
        job.addCallbacks(self._stored, self._job_failed, callbackArgs=(data,))

    def _store_blocking(self, data: bytes) -> tuple[int, str]:
        """Hash and write one batch; return how much of it lies in the file and why not all."""
        for digest in self._digests:
            digest.feed(data)
        if not self.is_kept:
            return 0, self.keep_error
        assert self._file is not None
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._file.fd, view[written:], self._file_length + written)
        except OSError as error:
            return written, error.strerror or type(error).__name__
        return written, ""

    def _stored(self, result: tuple[int, str], data: bytes) -> None:
        written, why = result
        self._is_busy = False
        self._queued -= len(data)
        self._file_length += written
        self.keep_error = self.keep_error or why
        if written < len(data):
            self._window.append(_Piece(self.length + written, data[written:]))
            self._window_size += len(data) - written
        self.length += len(data)
        self._kick()
        self._grown.fire()
        self._drained.fire()
        self._close_if_unused()

    def _job_failed(self, failure: object) -> None:
        self._is_busy = False
        error: BaseException = getattr(failure, "value", Unavailable("a spool job failed"))
        self._break(error)
        self._close_if_unused()

    # The readers' side

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Read from `start` up to `stop` (exclusive, default the end).

        :raises Overtaken: if bytes from `start` on have passed already without being kept.
        """
        if start < self._window_start() and self._file_length < self._window_start():
            raise Overtaken("these bytes have passed without being kept")
        reader = SpoolReader(self, start, stop)
        self._readers.add(reader)
        return reader

    def _window_start(self) -> int:
        return self._window[0].offset if self._window else self.length

    def _read(self, position: int, limit: int) -> bytes:
        """Bytes from `position`, at most up to `limit`; both within what is there."""
        if position < self._file_length:
            assert self._file is not None
            count = min(READ_SIZE, limit - position, self._file_length - position)
            try:
                return os.pread(self._file.fd, count, position)
            except OSError as error:
                raise Unavailable(f"the spool cannot be read: {error.strerror}") from error
        for piece in self._window:
            if piece.offset <= position < piece.stop:
                start = position - piece.offset
                return piece.data[start : start + min(READ_SIZE, limit - position)]
        raise Overtaken("these bytes have passed without being kept")

    def _moved(self) -> None:
        """Drop from the window what every reader has passed."""
        if not self._window or not self._readers:
            return
        slowest = min(reader.position for reader in self._readers)
        before = self._window_size
        while self._window and self._window[0].stop <= slowest:
            self._window_size -= len(self._window.popleft().data)
        if self._window_size < before:
            self._kick()

    def _left(self, reader: SpoolReader) -> None:
        self._readers.discard(reader)
        self._moved()
        self._kick()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_released and not self._readers and not self._is_busy and self._file is not None:
            self._file.close()
            self._file = None
            self._window.clear()


class SpoolReader:
    """A Body over a Spool; see `ncps.ports.Body`."""

    def __init__(self, spool: Spool, start: int, stop: int | None) -> None:
        self.position = start
        self._spool = spool
        self._start = start
        self._stop = stop
        self._is_closed = False

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        stop = self._stop if self._stop is not None else self._spool.total
        return None if stop is None else stop - self._start

    def segment(self) -> Segment | None:
        """None: the file may still grow."""
        return None

    def _limit(self) -> tuple[int, bool]:
        """Offset up to which bytes may leave now, and whether that is the end."""
        spool = self._spool
        end = self._stop if self._stop is not None else spool.total
        if spool._is_committed:
            end = spool.length if end is None else min(end, spool.length)
            return end, True
        free = spool.length if end is not None else spool.length - HOLD_BACK
        if end is not None:
            free = min(free, end - HOLD_BACK)
        return free, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        spool = self._spool
        while not self._is_closed:
            if spool._error is not None:
                raise spool._error.with_traceback(None)
            limit, is_end = self._limit()
            if self.position < limit:
                data = spool._read(self.position, limit)
                if not data:
                    raise Corrupt("the spool lost bytes")
                self.position += len(data)
                spool._moved()
                yield data
            elif is_end:
                return
            else:
                await spool._grown.next()

    def close(self) -> None:
        """Stop reading; idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._spool._left(self)
