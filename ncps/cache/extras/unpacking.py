"""Unpacking: the NAR in a file that is being pulled, decoded in threads."""

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
"""Bytes of the NAR that are looked at in one call of a thread, about."""


class Unpacking:
    """Decodes a NAR and gives the pieces to a reader, which gives bytes of its own.

    :param body: of the file; closed by `close`.
    :param compression: of the file. Raises Refused if it cannot be decoded.
    :param max_size: of the NAR; None if it is not known, and then `ratio` bounds it.
    :param feed: called in a thread with each piece of the NAR.
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
        """Yield the bytes that the reader gives, up to the end of the NAR.

        Raises Corrupt if it is none, and the errors of the body and of the reader.
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
        """Take some pieces; return the bytes that came of them, and whether there are no more."""
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
        """Give the file up."""
        self._body.close()
