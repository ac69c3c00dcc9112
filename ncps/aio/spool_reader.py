"""The readers of a spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Protocol, TypeVar

from ncps.aio.waiting import Wakeup
from ncps.errors import Unavailable
from ncps.ports import GrowingBody, Segment

T = TypeVar("T")

HOLD_BACK: Final = 64 * 1024
"""The last bytes of each reader, which it gets only when the spool is committed."""


PIECE: Final = 8 * 1024 * 1024
"""Bytes of one segment of the file, at most."""


class Overtaken(Unavailable):
    """The spool no longer has the requested bytes; only a new fetch can bring them."""


class Readable(Protocol):
    """The part of a spool that its readers need.

    :ivar total: bytes in all, if known by now.
    :ivar is_total_sure: whether `total` is known for certain.
    :ivar verdict: the error that readers raise; None while all is well.
    :ivar is_committed: whether the file is complete and right.
    """

    total: int | None
    is_total_sure: bool
    verdict: BaseException | None
    is_committed: bool

    @property
    def length(self) -> int:
        """Bytes that have come."""

    @property
    def shown(self) -> int:
        """Bytes that readers may get, including those that they hold back."""

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far lie in the file, or will."""

    async def read(self, position: int, limit: int) -> bytes:
        """Return bytes from `position`, at most up to `limit`; both lie within the file."""

    def segment(self, position: int, limit: int) -> Segment | None:
        """Return where such bytes lie in a file; None if they do not."""

    def moved(self, before: int) -> None:
        """Learn that a reader has left this position."""

    def left(self, reader: SpoolReader) -> None:
        """Learn that a reader is closed."""


class SpoolReader(GrowingBody):
    """A Body over a Spool; see `ncps.ports.GrowingBody`.

    The file may prove shorter than a `total` that is not sure. A client that has all its bytes by
    then could only ask for a rest that does not exist. So readers do not get the last byte that has
    come.
    """

    def __init__(self, spool: Readable, start: int, stop: int | None) -> None:
        self.position = start
        self._spool = spool
        self._start = start
        self._stop = stop
        self._tail = b""
        self._is_closed = False
        self._wakeup = Wakeup()

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        return None if self._end is None else self._end - self._start

    @property
    def _end(self) -> int | None:
        return self._stop if self._stop is not None else self._spool.total

    @property
    def has_all(self) -> bool:
        """Whether the reader needs no more bytes; it may still need the verdict."""
        return self._end is not None and self.position >= self._end

    def segment(self) -> Segment | None:
        """Return None: the file may still grow."""
        return None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._follow(self._take)

    def pieces(self) -> AsyncIterator[bytes | Segment]:
        """See `GrowingBody`."""
        return self._follow(self._take_piece)

    async def _follow(self, take: Callable[[int], Awaitable[T]]) -> AsyncIterator[bytes | T]:
        """Yield the bytes that the reader may get, up to the end."""
        spool = self._spool
        while True:
            if self._is_closed:
                raise Unavailable("the reader was closed before its end")
            if spool.verdict is not None:
                raise spool.verdict.with_traceback(None)
            is_end, limit = spool.is_committed, self._limit()
            if self.position < limit:
                yield await take(limit)
            elif is_end:
                if self._tail:
                    yield self._tail
                return
            elif not await self._secure_tail():
                await self._wakeup.wait()

    def _limit(self) -> int:
        """Return the offset up to which the reader may get bytes now."""
        length, end = self._spool.shown, self._end
        if self._spool.is_committed:
            return length if end is None else min(end, length)
        if end is None:
            return length - HOLD_BACK
        return min(length if self._spool.is_total_sure else length - 1, end - HOLD_BACK)

    async def _take(self, limit: int) -> bytes:
        data = await self._spool.read(self.position, limit)
        if self._is_closed:
            raise Unavailable("the reader was closed before its end")
        self.position += len(data)
        self._spool.moved(self.position - len(data))
        return data

    async def _take_piece(self, limit: int) -> bytes | Segment:
        piece = self._spool.segment(self.position, min(limit, self.position + PIECE))
        if piece is None:
            return await self._take(limit)
        self.position += piece.length
        self._spool.moved(piece.offset)
        return piece

    async def _secure_tail(self) -> bool:
        """Copy the bytes that are held back out of the window, which may be full of them.

        A full window stops the writer, and `commit` waits for the writer. Return False, without
        waiting, if there is nothing to copy.
        """
        spool, end = self._spool, self._end
        if end is None or spool.is_kept or not self.position < end <= spool.length:
            return False
        pieces = []
        while self.position < end:
            pieces.append(await self._take(end))
        self._tail = b"".join(pieces)
        return True

    def close(self) -> None:
        """Close the reader; reading then raises Unavailable. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._spool.left(self)
            self.wake()

    def wake(self) -> None:
        """Look at the spool again: it has more bytes, or a verdict."""
        self._wakeup.wake()


class Readers:
    """The open readers of one spool."""

    def __init__(self) -> None:
        self._open: dict[SpoolReader, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[SpoolReader]:
        return iter(tuple(self._open))

    def add(self, spool: Readable, start: int, stop: int | None, *, is_here: bool) -> SpoolReader:
        """Open a reader. Raises the verdict, if it is an error; Overtaken unless `is_here`."""
        if spool.verdict is not None:
            raise spool.verdict.with_traceback(None)
        if not is_here:
            raise Overtaken("these bytes are no longer here")
        reader = SpoolReader(spool, start, stop)
        self._open[reader] = None
        return reader

    def wake(self) -> None:
        """Make all readers look at the spool again."""
        for reader in self:
            reader.wake()

    def remove(self, reader: SpoolReader) -> None:
        """Forget a reader; harmless when repeated."""
        self._open.pop(reader, None)
