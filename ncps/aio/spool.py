"""Spool: a growing file with one writer and many readers at any offset, each at its own pace.

    writer --> queue --(one thread job at a time: write + hash)--> file ------> readers (pread)
                                                          \\--> window (only when the disk failed)

The writer hands over chunks and waits only when too much is queued. A batch is written and
hashed in one thread job, batches strictly in order; readers are woken once per batch. The last
`HOLD_BACK` bytes of every reader wait for `commit`: a reader whose bytes turn out wrong raises
instead of ending, so a corrupt or cut source can never look complete.

When the file cannot take more (full or read-only disk) the spool streams through: what comes
after lives in a bounded window in memory until the slowest reader has passed it, and the writer
waits for that reader. A reader whose bytes are all there takes them out of the window and waits
for the verdict alone. Such a spool cannot be published; `keep_error` says why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ncps.aio.nowait import READ_SIZE
from ncps.aio.spool_file import SpoolFile, read_blocking, read_now
from ncps.aio.spool_reader import SpoolReader
from ncps.aio.threads import Threads, in_background
from ncps.aio.waiting import Wakeup
from ncps.errors import NcpsError, Unavailable
from ncps.nix.hashes import Hash
from ncps.ports import Spooled

P = ParamSpec("P")
R = TypeVar("R")

HOLD_BACK = 64 * 1024
QUEUE_HIGH = 8 * 1024 * 1024
QUEUE_LOW = 4 * 1024 * 1024
BATCH_LIMIT = 2 * 1024 * 1024
WINDOW_HIGH = 4 * 1024 * 1024


class Digest(Protocol):
    """Something that follows the bytes; `feed` runs in a thread, never twice at once."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises `Corrupt` to end the spool."""


class Overtaken(Unavailable):
    """The bytes asked for have passed through without being kept; only a new fetch has them."""


class Abandoned(NcpsError):
    """The bytes can neither be kept nor has anybody stayed to read them."""


class Spool:
    """See the module.

    The writer calls `write` again and again, `flush`, `commit` or `fail`, and at last `release`.

    :param file: opens, blocking, where the bytes go; None to stream through from the first byte.
    :param workers: runs the batches.
    :param digests: follow every byte, in order.
    :param total: size of the whole, if known; lets readers go on up to its last HOLD_BACK bytes.
    :param keep_error: why there is no file, where there is none.
    """

    def __init__(
        self,
        *,
        file: Callable[[], SpoolFile] | None,
        workers: Threads,
        digests: tuple[Digest, ...],
        total: int | None,
        keep_error: str = "",
    ) -> None:
        self.total = total
        self.length = 0
        self.keep_error = keep_error if file is None else ""
        self._open_file = file
        self._file: SpoolFile | None = None
        self._workers = workers
        self._digests = digests
        self._file_length = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._is_busy = False
        self._window = bytearray()
        self._window_at = 0
        self._broken: BaseException | None = None
        self._error: BaseException | None = None
        self._is_committed = False
        self._is_released = False
        self._is_discarded = False
        self._is_closed = False
        self._reads = 0  # in threads
        self._readers: dict[SpoolReader, None] = {}
        self._drained = Wakeup()

    # The writer's side

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far lie in the file, or will."""
        has_file = self._file is not None or self._open_file is not None
        return has_file and not self.keep_error

    @property
    def error(self) -> BaseException | None:
        """What went wrong with the spool itself, as far as its writer can know."""
        return self._broken

    @property
    def verdict(self) -> BaseException | None:
        """What readers are to raise; None while all is well."""
        return self._error

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
                await self._drained.wait()
                self._check()

    async def flush(self) -> None:
        """Wait until everything handed over is written and hashed; nothing makes a file, too."""
        if self._open_file is not None and not self._queue and not self._is_busy:
            await self.write(b"")
        while self._is_busy or self._queue:
            self._check()
            await self._drained.wait()
        self._check()

    async def reread(self, digest: Digest) -> None:
        """Let a digest see all bytes once more; only if `is_kept`. Raises what it raises."""
        position = 0
        while position < self.length:
            position = await self._in_file(self._feed_blocking, digest, position)

    def _feed_blocking(self, digest: Digest, position: int) -> int:
        assert self._file is not None
        data = read_blocking(self._file, min(READ_SIZE, self._file_length - position), position)
        digest.feed(data)
        return position + len(data)

    def commit(self) -> None:
        """Let readers have the end: everything is there and right."""
        self.total = self.length
        self._is_committed = True
        self._tell_readers()

    def fail(self, error: BaseException) -> None:
        """End the spool: readers and the writer raise this error. Only the first one counts."""
        if self._error is None and not self._is_committed:
            self._error = error
            self._break(error)
            self._tell_readers()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken.with_traceback(None)

    def _break(self, error: BaseException) -> None:
        """Let the writer know; what the readers are told is the writer's decision."""
        self._broken = self._broken or error
        self._queue.clear()
        self._drained.ring()

    def _spoil(self, error: BaseException) -> None:
        """End the spool, committed or not, because a fault has left it in an unknown state.

        A lack of memory is enough. A batch that was counted and is not there, or there and not
        counted, moves all bytes behind it.
        """
        self._error = self._error or error
        self._break(error)
        self._tell_readers()

    def spooled(self, sha256: Hash) -> Spooled:
        """Name the file for publication; only after `flush`, and only if `is_kept`."""
        assert self._file is not None
        return Spooled(path=self._file.path, size=self.length, sha256=sha256)

    def release(self) -> None:
        """Say that the writer needs the spool no more: it goes with its last reader. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._discard()
            self._close_if_unused()

    def _discard(self) -> None:
        if self._file is not None and not self._is_discarded:
            self._is_discarded = True
            in_background(self._workers, self._file.discard)

    def _kick(self) -> None:
        """Start on what is queued, unless a batch runs or the window is full."""
        if self._is_busy or not self._queue or self._broken is not None:
            return
        if len(self._window) > WINDOW_HIGH:
            if not self._readers:
                self._break(Abandoned("nobody reads the bytes and they cannot be kept"))
            return  # a reader that moves on kicks again
        batch: list[bytes] = []
        size = 0
        while self._queue and size < BATCH_LIMIT:
            size += len(self._queue[0])
            batch.append(self._queue.popleft())
        self._is_busy = True
        try:
            data = batch[0] if len(batch) == 1 else b"".join(batch)
            job = Deferred.fromCoroutine(self._workers.run(self._store_blocking, data))
            job.addCallbacks(self._stored, self._job_failed, callbackArgs=(data,))
        except BaseException as error:
            self._spoil(error)  # and busy for ever: a thread may be writing
            raise

    def _store_blocking(self, data: bytes) -> tuple[int, str]:
        """Hash and write one batch; return how much of it lies in the file and why not all."""
        for digest in self._digests:
            digest.feed(data)
        if self._open_file is not None:
            try:
                self._file = self._open_file()
            except NcpsError as error:
                return 0, str(error)
            finally:
                self._open_file = None
        if self._file is None or self.keep_error:
            return 0, self.keep_error
        written = 0
        try:
            while written < len(data):
                rest = memoryview(data)[written:]
                written += os.pwrite(self._file.fd, rest, self._file_length + written)
        except OSError as error:
            return written, error.strerror or type(error).__name__
        return written, ""

    def _stored(self, result: tuple[int, str], data: bytes) -> None:
        try:
            self._take_in(result, data)
        except BaseException as error:  # noqa: BLE001 - passed on to all who use the spool
            self._is_busy = False
            self._spoil(error)
            self._close_if_unused()

    def _take_in(self, result: tuple[int, str], data: bytes) -> None:
        """Let readers have a batch."""
        written, why = result
        self._is_busy = False
        self._queued -= len(data)
        self._file_length += written
        self.keep_error = self.keep_error or why
        if written < len(data):
            if not self._window:
                self._window_at = self.length + written
            self._window += memoryview(data)[written:]
            self._trim()
        self.length += len(data)
        self._kick()
        self._tell_readers()
        self._drained.ring()
        self._close_if_unused()

    def _job_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._is_busy = False
        self._break(failure.value)
        self._close_if_unused()

    # The readers' side

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Read from `start` up to `stop` (exclusive, default the end).

        Raises what the spool was failed with; Overtaken if bytes from `start` on have passed
        without being kept, or if the spool is gone.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._is_closed or (start < self._passed and self._file_length < self._passed):
            raise Overtaken("these bytes are no longer here")
        reader = SpoolReader(self, start, stop)
        self._readers[reader] = None
        return reader

    @property
    def _passed(self) -> int:  # only the file, if anything, still has the bytes before
        return self._window_at if self._window else self.length

    def limit(self, end: int | None) -> tuple[int, bool]:
        """Offset up to which bytes may leave now on their way to `end`, and whether that is it."""
        if self._is_committed:
            return self.length if end is None else min(end, self.length), True
        if end is None:
            return self.length - HOLD_BACK, False
        return min(self.length, end - HOLD_BACK), False

    def _tell_readers(self) -> None:
        for reader in tuple(self._readers):
            reader.wake()

    async def read(self, position: int, limit: int) -> bytes:
        """Bytes from `position`, at most up to `limit`; both within what is there."""
        count = min(READ_SIZE, limit - position)
        if position < self._file_length:
            assert self._file is not None
            count = min(count, self._file_length - position)
            data = read_now(self._file, count, position)
            if data is None:
                data = await self._in_file(read_blocking, self._file, count, position)
            return data
        start = position - self._window_at
        with memoryview(self._window) as window:
            return bytes(window[start : start + count])

    async def _in_file(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a thread read in the file, which is not closed meanwhile."""

        def ended(result: Any) -> Any:
            self._reads -= 1
            self._close_if_unused()
            return result

        self._reads += 1
        job = Deferred.fromCoroutine(self._workers.run(function, *args, **kwargs))
        waiting: Deferred[R] = Deferred()
        job.addBoth(ended).addCallbacks(waiting.callback, waiting.errback)
        return await waiting

    def moved(self, before: int) -> None:
        """Note that a reader has left `before`; only one that held the window up matters."""
        if self._window and before <= self._window_at:
            self._trim()
            self._kick()

    def _trim(self) -> None:
        """Drop from the window what every reader has passed; what nobody has had stays."""
        if self._readers:
            there = self._window_at + len(self._window)
            needed = min([r.position for r in self._readers if not r.has_all], default=there)
            start = max(self._window_at, min(needed, there))
            try:
                del self._window[: start - self._window_at]
                self._window_at = start
            except BaseException as error:  # they may be gone nevertheless
                self._spoil(error)
                raise

    def left(self, reader: SpoolReader) -> None:
        """Note that a reader is closed."""
        self._readers.pop(reader, None)
        self.moved(reader.position)
        self._kick()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        is_used = self._readers or self._is_busy or self._reads
        if self._is_released and not is_used and not self._is_closed:
            self._is_closed = True
            self._window.clear()
            self._discard()
            file, self._file = self._file, None
            if file is not None:
                in_background(self._workers, file.close)
