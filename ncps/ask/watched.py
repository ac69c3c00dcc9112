"""Watched: a NAR's bytes, whose end tells of the health of the upstream that they come from."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ncps.ask.health import Health
from ncps.errors import Unavailable, Unconfirmed
from ncps.ports import Segment, UpstreamBody


class WatchedBody(UpstreamBody):
    """A Body whose end is told to its upstream's health."""

    def __init__(self, body: UpstreamBody, health: Health) -> None:
        self._body = body
        self._health = health
        self._is_noted = False

    @property
    def start(self) -> int:
        return self._body.start

    @property
    def total(self) -> int | None:
        return self._body.total

    @property
    def size(self) -> int | None:
        return self._body.size

    def segment(self) -> Segment | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        try:
            async for chunk in self._body:
                position += len(chunk)
                yield chunk
        except Unconfirmed:
            raise
        except Unavailable as error:
            if position != self.total:  # else only the end of the connection was rude
                self._health.failed(str(error), error.retry_after)
                if error.timed_out:
                    self._is_noted = True
                    self._health.stalled(str(error))
            raise
        self._is_noted = True
        self._health.delivered()

    def close(self) -> None:
        self._body.close()
        if not self._is_noted:
            self._is_noted = True
            self._health.let_go()
