"""SmallSpool: the bytes of a small file in memory, from the first one until it is published.

A small file needs little memory, and much time in a thread and on a disk. So it is hashed in the
turn in which its last byte comes, and no reader gets a byte before that. If the file takes longer
than `PROMPT_S` to come, its readers get it as it grows, except its end. It is written to the disk
only when it is published. All such files share a budget of memory; a file that does not fit into it
has a `Spool` on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ncps.aio.growing import Digest, Estimated, GrowingFile
from ncps.aio.nowait import READ_SIZE
from ncps.aio.spool_reader import Readers, SpoolReader
from ncps.aio.threads import Threads
from ncps.aio.waiting import Wakeup
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import NarStore, Segment, Stat

PROMPT_S: Final = 0.25
"""Seconds for which readers wait for the whole file."""

INLINE_S: Final = 0.003
"""Seconds of hashing that the reactor's thread does; another thread does longer work."""


class Budget:
    """The memory that all small files may use together.

    :ivar left: bytes that are free.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take bytes; False if fewer are free."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.left += size


class SmallSpool(GrowingFile):
    """A small file that grows while others wait for it; see `GrowingFile`.

    :param total: bytes in all, for which the budget has room.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        workers: Threads,
        digests: Sequence[Estimated],
        total: int,
        budget: Budget,
    ) -> None:
        self.total: int | None = total
        self.verdict: BaseException | None = None
        self.is_committed = False
        self._clock = clock
        self._since = clock.seconds()
        self._workers = workers
        self._feeds = [digest.feed for digest in digests]
        self._is_cheap = sum([digest.cost_s for digest in digests]) <= INLINE_S
        self._budget, self._size = budget, total
        self._pieces: list[bytes] = []
        self._data: bytes | bytearray = b""
        self._error: BaseException | None = None
        self._is_late = self._is_busy = False
        self._rested = Wakeup()
        self._showing: IDelayedCall | None = None
        self._readers = Readers()
        self._is_released = self._is_closed = False

    # The writer's side

    @property
    def length(self) -> int:
        return len(self._data)

    @property
    def _is_slow(self) -> bool:
        return self._is_late or self._clock.seconds() - self._since > PROMPT_S

    @property
    def shown(self) -> int:
        """Bytes that readers may get: none before all have come, unless that takes long."""
        return len(self._data) if self.is_committed or self._is_slow else 0

    @property
    def is_kept(self) -> bool:
        return True

    @property
    def keep_error(self) -> str:
        return ""

    @property
    def error(self) -> BaseException | None:
        return self._error

    async def write(self, data: bytes) -> None:
        self._check()
        self._pieces.append(data)
        if self._is_slow:
            await self.flush()
        elif self._showing is None:
            left_s = self._since + PROMPT_S - self._clock.seconds()
            self._showing = self._clock.callLater(max(0.0, left_s), self._show)

    def _show(self) -> None:
        """Give readers the bytes so far: the source may send nothing more for a long time.

        If the source broke off, readers wait for the first bytes of the next source: until then,
        clients can still get an error.
        """
        self._is_late = True
        if not self._is_closed:
            # The writer gets an error from its next call.
            Deferred.fromCoroutine(self.flush()).addErrback(lambda _: None)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def flush(self) -> None:
        while self._is_busy:
            await self._rested.wait()
        self._check()
        pieces, self._pieces = self._pieces, []
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not data:
            return
        self._is_busy = True
        try:
            if self._is_cheap:
                self._feed_all(self._feeds, data)
            else:
                await self._workers.run(self._feed_all, self._feeds, data)
            if not self._is_closed:
                self._data = _joined(self._data, data)
        except BaseException as error:  # digests and bytes may differ now
            self._error = self._error or error
            raise
        finally:
            self._is_busy = False
            self._rested.wake()
        self._readers.wake()

    @staticmethod
    def _feed_all(feeds: Sequence[Callable[[bytes], object]], data: bytes) -> None:
        for feed in feeds:
            feed(data)

    async def reread(self, digest: Digest) -> None:
        await self._workers.run(digest.feed, bytes(self._data))

    def commit(self) -> None:
        if self._showing is not None and self._showing.active():
            self._showing.cancel()
        self.total = self.length
        self._data = bytes(self._data)
        self.is_committed = True
        self._readers.wake()

    def fail(self, error: BaseException) -> None:
        if self.verdict is None and not self.is_committed:
            self.verdict = error
            self._error = self._error or error
            self._readers.wake()

    async def publish(self, store: NarStore, key: NarKey, sha256: Hash) -> Stat:
        return await store.put_small(key, bytes(self._data), sha256)

    def release(self) -> None:
        self._is_released = True
        self._close_if_unused()

    # The readers' side

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Read from `start` up to `stop`; raises as `Spool.reader` does."""
        return self._readers.add(self, start, stop, is_here=not self._is_closed)

    async def read(self, position: int, limit: int) -> bytes:
        """Return bytes from `position`, at most up to `limit`; both lie within the file."""
        return bytes(self._data[position : min(limit, position + READ_SIZE)])

    def segment(self, position: int, limit: int) -> Segment | None:
        """Return None: there is no file on the disk."""

    def moved(self, before: int) -> None:
        """Do nothing: no byte waits for a reader."""

    def left(self, reader: SpoolReader) -> None:
        """Forget a reader that is closed."""
        self._readers.remove(reader)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_released and not self._readers and not self._is_closed:
            self._is_closed = True
            if self._showing is not None and self._showing.active():
                self._showing.cancel()
            self._budget.give(self._size)
            self._data, self._pieces = b"", []


def _joined(data: bytes | bytearray, more: bytes) -> bytes | bytearray:
    """Append bytes; in place after the first time, because a slow source sends many packets."""
    if not data:
        return more
    grown = bytearray(data) if isinstance(data, bytes) else data
    grown += more
    return grown
