"""The queue of a spool: chunks that its writer has handed over and that wait to be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from ncps.aio.waiting import Wakeup

QUEUE_HIGH: Final = 8 * 1024 * 1024
QUEUE_LOW: Final = 4 * 1024 * 1024
BATCH_LIMIT: Final = 2 * 1024 * 1024

SMALL: Final = 64 * 1024
"""Bytes of a chunk that is cheaper to copy than to write by itself."""


class SpoolQueue:
    """Chunks in their order, which leave in batches, one batch at a time.

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
        """Take out at least one chunk, and more while they are fewer than `BATCH_LIMIT` bytes.

        Large chunks stay as they are; small ones become one.
        """
        batch: list[bytes] = []
        size = 0
        while self.chunks and size < BATCH_LIMIT:
            size += len(self.chunks[0])
            batch.append(self.chunks.popleft())
        is_large = size >= SMALL * len(batch)
        return batch if is_large or len(batch) == 1 else (b"".join(batch),)

    def fail(self, error: BaseException) -> None:
        """Drop all chunks and have the writer raise the error; only the first one counts."""
        self.error = self.error or error
        self.chunks.clear()
        self.wake()

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    def wake(self) -> None:
        """Have the writer look again: a batch is written, or there is an error."""
        self._changed.wake()

    async def change(self) -> None:
        """Wait for the next `wake`. Raises the error, if there is one."""
        self.check()
        await self._changed.wait()
        self.check()

    async def room(self) -> None:
        """Wait while too much is queued. Raises the error, if there is one."""
        if self.size > QUEUE_HIGH:
            while self.size > QUEUE_LOW:
                await self._changed.wait()
                self.check()

    async def fallen_to(self, left: int) -> None:
        """Wait until at most `left` bytes are not written. Raises the error, if there is one."""
        while (self.is_busy or self.chunks) if not left else self.size > left:
            await self.change()
        self.check()
