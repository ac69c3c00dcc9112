"""Spool: a growing file with one writer and many readers at any offset, each at its own pace.

    writer --> queue --(one thread job at a time: write + hash)--> file ------> readers (pread)
                 \\--(another one)--> trail                 \\--> window (only when the disk failed)

The writer adds chunks to the queue, and waits only when the queue is full. One thread job writes
and hashes a batch; batches never overlap; each wakes the readers once. The last `HOLD_BACK` bytes
of every reader wait for `commit`. If the bytes prove wrong, the reader raises an error instead of
ending, so a corrupt or cut source never looks complete. A trailing digest has jobs of its own; the
spool waits for it at the end unless it is given up.

When the disk takes no more bytes (full or read-only), the spool streams through: a bounded window
in memory holds further bytes until the slowest reader has read them, and the writer waits for that
reader. A reader that needs only bytes of the window copies them and waits for the verdict. Such a
spool cannot be published; `keep_error` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ncps.aio.growing import Digest, GrowingFile
from ncps.aio.spool_content import SpoolContent, size_of
from ncps.aio.spool_file import SpoolFile
from ncps.aio.spool_queue import SpoolQueue
from ncps.aio.spool_reader import Readers, SpoolReader
from ncps.aio.spool_trail import SpoolTrail
from ncps.aio.threads import Threads
from ncps.errors import NcpsError
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import NarStore, Segment, Spooled, Stat

WINDOW_HIGH = 4 * 1024 * 1024


class Abandoned(NcpsError):
    """The bytes cannot be kept, and no reader is left."""


class Spool(GrowingFile):
    """A file that grows while others read it.

    The writer calls `write` repeatedly, then `flush`, `commit` or `fail`, and finally `release`.

    :param file: opens the file, blocking; None to stream through from the first byte.
    :param workers: run the batches.
    :param digests: get every byte, in order.
    :param total: size of the whole file, if known; then readers get all but its last HOLD_BACK
        bytes before `commit`.
    :param keep_error: the reason if there is no file.
    :ivar verdict: the error that readers raise; None while all is well.
    :ivar is_committed: whether the file is complete and right.
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
        self.total: int | None = total
        self.verdict: BaseException | None = None
        self.is_committed = False
        self._queue = queue = SpoolQueue()
        self._trail = SpoolTrail(digests, workers, queue.wake, queue.fail)
        feeds = tuple(digest.feed for digest in digests if digest not in self._trail.digests)
        self._content = SpoolContent(file, workers, feeds, self._close_if_unused, keep_error)
        self._readers = Readers()
        self._is_released = False
        self._is_closed = False

    @property
    def length(self) -> int:
        return self._content.length

    shown = length

    @property
    def is_kept(self) -> bool:
        return self._content.disk.is_kept

    @property
    def keep_error(self) -> str:
        return self._content.disk.trouble

    @property
    def error(self) -> BaseException | None:
        return self._queue.error

    async def write(self, data: bytes) -> None:
        self._queue.put(data)
        self._kick()
        await self._queue.room()

    async def flush(self, left: int = 0) -> None:
        """Wait until at most `left` bytes are queued; if none ever came, make an empty file."""
        if self._content.disk.is_unopened and not self._queue and not self._queue.is_busy:
            await self.write(b"")
        await self._queue.fallen_to(left)
        while not left and self._trail.is_awaited:
            await self._queue.change()

    async def reread(self, digest: Digest) -> None:
        """Feed all bytes once more to a digest; only if `is_kept`. Raises the digest's errors."""
        await self._content.reread(digest.feed)

    def commit(self) -> None:
        self.total, self.is_committed = self.length, True
        self._readers.wake()

    def fail(self, error: BaseException) -> None:
        """End the spool: readers and the writer raise this error. Only the first one counts."""
        if self.verdict is None and not self.is_committed:
            self._spoil(error)

    def _spoil(self, error: BaseException) -> None:
        """End the spool, committed or not.

        After a fault such as a lack of memory, a batch may be counted without being there, or be
        there without being counted. Then later bytes would have wrong offsets.
        """
        self.verdict = self.verdict or error
        self._queue.fail(error)
        self._trail.end()
        self._readers.wake()

    async def publish(self, store: NarStore, key: NarKey, sha256: Hash) -> Stat:
        return await store.publish(key, self.spooled(sha256))

    def spooled(self, sha256: Hash) -> Spooled:
        """Return the file for publication; only after `flush`, and only if `is_kept`."""
        return Spooled(path=self._content.disk.file.path, size=self.length, sha256=sha256)

    def release(self) -> None:
        """Say that the writer is done: the spool closes with its last reader. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._trail.end()
            self._content.disk.discard()
            self._close_if_unused()

    def _kick(self) -> None:
        """Begin the next batch, unless one runs or the window is full."""
        if self._queue.is_busy or not self._queue or self._queue.error is not None:
            return
        if len(self._content.window) > WINDOW_HIGH:
            if not self._readers:
                self._queue.fail(Abandoned("no client reads the bytes, and they cannot be kept"))
            return  # `moved` calls this again when a reader has made room
        self._queue.is_busy = True
        try:
            pieces = self._queue.take_batch()
            job = Deferred.fromCoroutine(self._content.store(pieces, apart=not self._readers))
            self._trail.follow(pieces)
            job.addCallbacks(self._stored, self._job_failed, callbackArgs=(pieces,))
        except BaseException as error:
            self._spoil(error)  # and stay busy for ever: a thread may still write
            raise

    def _stored(self, result: tuple[int, str], pieces: Sequence[bytes]) -> None:
        """Give a batch to the readers."""
        (written, why), size = result, size_of(pieces)
        self._queue.is_busy = False
        try:
            self._queue.size -= size
            self._content.stored(pieces, written, why)
            if written < size:
                self._trim()
            self._content.length += size
            self._kick()
            self._readers.wake()
            self._queue.wake()
            self._close_if_unused()
        except BaseException as error:  # noqa: BLE001 - passed on to all users of the spool
            self._queue.is_busy = False
            self._spoil(error)
            self._close_if_unused()

    def _job_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._queue.is_busy = False
        self._queue.fail(failure.value)
        self._close_if_unused()

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Open a reader from `start` up to `stop` (exclusive, default the end).

        Raises the error of a spool that has failed; Overtaken if bytes from `start` on are no
        longer there, or if the spool is closed.
        """
        is_here = not self._is_closed and self._content.has(start)
        return self._readers.add(self, start, stop, is_here=is_here)

    async def read(self, position: int, limit: int) -> bytes:
        """Return bytes from `position`, at most up to `limit`; both lie within the file."""
        return await self._content.read(position, limit)

    def segment(self, position: int, limit: int) -> Segment | None:
        """Return where such bytes lie in the file; None if they are in the window."""
        return self._content.segment(position, limit)

    def moved(self, before: int) -> None:
        """Make room in the window if the reader that left `before` was the slowest one."""
        if self._content.window and before <= self._content.window.start:
            self._trim()
            self._kick()

    def _trim(self) -> None:
        """Drop the bytes of the window that every reader has read; without readers, keep all."""
        if self._readers:
            positions = [r.position for r in self._readers if not r.has_all]
            try:
                self._content.window.keep_from(positions)
            except BaseException as error:  # some bytes may be dropped nevertheless
                self._spoil(error)
                raise

    def left(self, reader: SpoolReader) -> None:
        """Forget a reader that is closed."""
        self._readers.remove(reader)
        self.moved(reader.position)
        self._kick()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        is_used = self._readers or self._queue.is_busy or self._content.disk.is_read
        if self._is_released and not is_used and not self._is_closed:
            self._is_closed = True
            self._content.close()
