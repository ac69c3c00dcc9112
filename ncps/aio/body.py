"""A body that passes on the bytes of another body, or of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Self

from ncps.ports import Segment, UpstreamBody


class PassedBody(UpstreamBody):
    """A body that passes on chunks; see `ncps.ports.UpstreamBody`.

    :param chunks: pulled once; an async generator begins with the first pull.
    :param on_close: called once, at the first `close`.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        on_close: Callable[[], object],
        *,
        start: int = 0,
        total: int | None,
    ) -> None:
        self._chunks = chunks
        self._on_close: Callable[[], object] | None = on_close
        self._start = start
        self._total = total

    @classmethod
    def over(
        cls, body: UpstreamBody, chunks: AsyncIterator[bytes], on_close: Callable[[], object]
    ) -> Self:
        """Make a body with the offsets of `body`; its `close` closes `body` first."""

        def close() -> None:
            body.close()
            on_close()

        return cls(chunks, close, start=body.start, total=body.total)

    @property
    def start(self) -> int:
        return self._start

    @property
    def total(self) -> int | None:
        return self._total

    @property
    def size(self) -> int | None:
        return None if self._total is None else self._total - self._start

    def segment(self) -> Segment | None:
        """Return None: the bytes lie in no file."""
        return None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    def close(self) -> None:
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
