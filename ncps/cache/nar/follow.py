"""Follow: a client's view of a download, from one spool to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ncps.cache.answers import Resized, WrongBytesSent
from ncps.errors import Corrupt, Unavailable
from ncps.ports import Body, Segment

TASTED_S = 3600.0
"""How long clients may come again for the rest of a file that they have some of."""

RESUMED_S = 60.0
"""The same once the file was found wrong, so that another one may take its place then."""

TASTED_ENTRIES = 50_000

SENT = "wrong bytes were sent"


class Superseded(Unavailable):
    """The spool had wrong bytes; another one takes its place."""


class Followed(Protocol):
    """What a reader needs of its download."""

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""

    def tasted(self) -> None:
        """Note that a client has had bytes of what is there."""

    async def reader(self, start: int = 0, stop: int | None = None) -> Body:
        """Another reader of the same bytes."""


class DownloadReader:
    """A Body that follows a download, also from one spool to the next; see `ncps.ports.Body`."""

    def __init__(self, download: Followed, body: Body, start: int, stop: int | None) -> None:
        self._download = download
        self._body = body
        self._start = start
        self._stop = stop
        self._promised = download.size
        self._is_closed = False

    @property
    def size(self) -> int | None:
        """Bytes in all, if known by now."""
        stop = self._stop if self._stop is not None else self._download.size
        return None if stop is None else stop - self._start

    def segment(self) -> Segment | None:
        """None: the file may still grow."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        has_begun = False
        while True:
            try:
                async for chunk in self._body:
                    if not has_begun:
                        has_begun = True
                        self._download.tasted()
                    yield chunk
                self._check_promise()
                return
            except Superseded as error:
                if has_begun:
                    raise WrongBytesSent(f"{SENT}: {error}") from error
            except Resized:
                raise
            except Corrupt as error:
                if has_begun:
                    raise WrongBytesSent(f"{SENT}: {error}") from error
                raise
            await self._move()

    async def _move(self) -> None:
        """Go over to the spool that takes the place of this one.

        Corrupt, if the size was wrong, too: whoever asked for a piece may have been told of it.
        """
        self._body.close()
        self._body = await self._download.reader(self._start, self._stop)
        self._check_promise()
        if self._is_closed:  # meanwhile
            self._body.close()

    def _check_promise(self) -> None:
        if self._promised not in {None, self._download.size}:
            raise Resized(f"the file was said to have {self._promised} bytes, and has not")

    def close(self) -> None:
        """Stop reading; idempotent."""
        self._is_closed = True
        self._body.close()
