"""Watched: a NAR's bytes, whose end tells of the health of the upstream that they come from."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ncps.aio.body import PassedBody
from ncps.ask.health import Health
from ncps.errors import Unavailable, Unconfirmed
from ncps.ports import UpstreamBody


def watched(body: UpstreamBody, health: Health) -> UpstreamBody:
    """Pass a body on, and tell its upstream's health how it has ended."""
    watch = _Watch(health)
    return PassedBody.over(body, watch.chunks(body), watch.closed)


class _Watch:
    """What is told of one body, once."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._is_noted = False

    async def chunks(self, body: UpstreamBody) -> AsyncIterator[bytes]:
        position = body.start
        try:
            async for chunk in body:
                position += len(chunk)
                yield chunk
        except Unconfirmed:
            raise
        except Unavailable as error:
            if position != body.total:  # else only the end of the connection was rude
                self._health.failed(str(error), error.retry_after)
                if error.timed_out:
                    self._is_noted = True
                    self._health.stalled(str(error))
            raise
        self._is_noted = True
        self._health.delivered()

    def closed(self) -> None:
        if not self._is_noted:
            self._is_noted = True
            self._health.let_go()
