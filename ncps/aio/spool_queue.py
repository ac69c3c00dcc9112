"""The queue of a spool: chunks that wait to be written to its file."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from ncps.aio.waiting import Wakeup

QUEUE_HIGH: Final = 8 * 1024 * 1024
QUEUE_LOW: Final = 4 * 1024 * 1024
BATCH_LIMIT: Final = 2 * 1024 * 1024

SMALL: Final = 64 * 1024
"""Bytes of a chunk below which a copy costs less than a write of its own."""


class SpoolQueue:
    """A queue of chunks; they leave in batches, one batch at a time.

    :ivar size: bytes of the chunks, and of the batch that is being written.
    :ivar is_busy: whether a batch is being written.
    :ivar error: the error that the writer gets; None while all is well.
    """

    def __init__(self) -> None:
        self.size = 0
        self.is_busy = False
        self.error: BaseException | None = None
        self.chunks: deque[bytes] = deque()
        self._changed = Wakeup()

    def __len__(self) -> int:
        return len(self.chunks)

    def put(self, data: bytes) -> None:
        """Add a chunk. Raises the error, if there is one."""
        self.check()
        self.chunks.append(data)
        self.size += len(data)

    def take_batch(self) -> Sequence[bytes]:
        """Remove and return at least one chunk, and more up to about `BATCH_LIMIT` bytes.

        Large chunks stay as they are; small ones are joined into one.
        """
        batch: list[bytes] = []
        size = 0
        while self.chunks and size < BATCH_LIMIT:
            size += len(self.chunks[0])
            batch.append(self.chunks.popleft())
        is_large = size >= SMALL * len(batch)
        return batch if is_large or len(batch) == 1 else (b"".join(batch),)

    def fail(self, error: BaseException) -> None:
        """Drop all chunks, and make the writer raise the error; only the first error counts."""
        self.error = self.error or error
        self.chunks.clear()
        self.wake()

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    def wake(self) -> None:
        """Wake the writer: a batch is written, or there is an error."""
        self._changed.wake()

    async def change(self) -> None:
        """Wait for the next `wake`. Raises the error, if there is one."""
        self.check()
        await self._changed.wait()
        self.check()

    async def room(self) -> None:
        """Wait while too many bytes are queued. Raises the error, if there is one."""
        if self.size > QUEUE_HIGH:
            while self.size > QUEUE_LOW:
                await self._changed.wait()
                self.check()

    async def fallen_to(self, left: int) -> None:
        """Wait until all but `left` bytes are written. Raises the error, if there is one."""
        while (self.is_busy or self.chunks) if not left else self.size > left:
            await self.change()
        self.check()
