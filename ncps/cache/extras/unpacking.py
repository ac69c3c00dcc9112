"""Unpacking: decodes the NAR in a file, in threads, at the pace of its reader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from ncps.aio.threads import Threads
from ncps.codec import decoder
from ncps.codec.ratio import Ratio
from ncps.codec.stream import Decoder
from ncps.errors import Corrupt
from ncps.ports import Body

STRIDE: Final = 1024 * 1024
"""Approximate number of bytes of the NAR that one call of a thread handles."""


class Unpacking:
    """Decodes a NAR and passes its pieces to a function, whose results it yields.

    Raises Refused if the compression cannot be decoded.

    :param body: the file's body; `close` closes it.
    :param compression: the file's compression.
    :param max_size: bytes of the NAR; None if unknown, and then `ratio` bounds it.
    :param feed: called in a thread with each piece of the NAR; gives the bytes to yield.
    """

    def __init__(
        self,
        body: Body,
        threads: Threads,
        compression: str,
        feed: Callable[[bytes], Iterator[bytes]],
        *,
        max_size: int | None,
        ratio: Ratio,
    ) -> None:
        self._body = body
        self._threads = threads
        self._decoder: Decoder = decoder(compression)
        self._feed = feed
        self._max_size = max_size
        self._ratio = ratio
        self._size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes that `feed` gives, up to the end of the NAR.

        Raises Corrupt if the file has no NAR inside, and the errors of the body and of `feed`.
        """
        async for chunk in self._body:
            self._ratio.took(len(chunk))
            pieces = self._decoder.feed(chunk)
            while True:
                given, is_done = await self._threads.run(self._step_blocking, pieces)
                if given:
                    yield given
                if is_done:
                    break
        await self._threads.run(self._decoder.finish)

    def _step_blocking(self, pieces: Iterator[bytes]) -> tuple[bytes, bool]:
        """Take some pieces; return the bytes that `feed` gave, and whether no pieces are left."""
        given: list[bytes] = []
        looked_at = 0
        for piece in pieces:
            self._size += len(piece)
            looked_at += len(piece)
            if self._max_size is None:
                self._ratio.gave(len(piece))
            elif self._size > self._max_size:
                raise Corrupt(f"the NAR is longer than {self._max_size} bytes")
            given += self._feed(piece)
            if looked_at >= STRIDE:
                return b"".join(given), False
        return b"".join(given), True

    def close(self) -> None:
        """Close the file's body."""
        self._body.close()
