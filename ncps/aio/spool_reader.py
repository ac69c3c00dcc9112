"""The readers' end of a spool; see `ncps.aio.spool`, whose insides are theirs, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ncps.aio.flights import Bell
from ncps.errors import Unavailable
from ncps.ports import Segment

if TYPE_CHECKING:
    from ncps.aio.spool import Spool


class SpoolReader:
    """A Body over a Spool; see `ncps.ports.Body`."""

    def __init__(self, spool: Spool, start: int, stop: int | None) -> None:
        self.position = start
        self._spool = spool
        self._start = start
        self._stop = stop
        self._tail = b""
        self._is_closed = False
        self._bell = Bell()

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        return None if self._end is None else self._end - self._start

    @property
    def _end(self) -> int | None:
        return self._stop if self._stop is not None else self._spool.total

    @property
    def has_all(self) -> bool:
        """Whether it needs no more bytes, though perhaps the verdict."""
        return self._end is not None and self.position >= self._end

    def segment(self) -> Segment | None:
        """None: the file may still grow."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        spool = self._spool
        while True:
            if self._is_closed:
                raise Unavailable("the reader was closed before its end")
            if spool._error is not None:
                raise spool._error.with_traceback(None)
            limit, is_end = spool._limit(self._end)
            if self.position < limit:
                yield await self._take(limit)
            elif is_end:
                if self._tail:
                    yield self._tail
                return
            elif not await self._secure_tail():
                await self._bell.wait()

    async def _take(self, limit: int) -> bytes:
        data = await self._spool._read(self.position, limit)
        if self._is_closed:
            raise Unavailable("the reader was closed before its end")
        self.position += len(data)
        self._spool._moved(self.position - len(data))
        return data

    async def _secure_tail(self) -> bool:
        """Take what is held back out of a window: its end would wait for us, and we for it.

        False: there is nothing to take, and nothing was waited for.
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
        """Stop reading, which then raises `Unavailable`; idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._spool._left(self)
            self._bell.ring()
