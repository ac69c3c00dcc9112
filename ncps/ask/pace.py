"""Pace: how fast a source has to send for a download to stay with it.

A source that trickles is well for all that its deadlines can tell: a byte comes now and then. It is
left where another one has the file, from the byte that there is. Alone, it may go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ncps.aio.body import PassedBody
from ncps.errors import Unavailable
from ncps.ports import UpstreamBody
from ncps.settings.schema.upstream import UpstreamsSettings

LOOK_S: Final = 5.0
"""How often the pace of another process is looked at: its lease may be free soon."""


def is_kept(pace: UpstreamsSettings, count: int, waited_s: float) -> bool:
    """Whether `count` bytes are enough for `waited_s` seconds of waiting."""
    return count >= pace.min_receive_rate_bytes * waited_s


class TooSlow(Unavailable):
    """A source was left because another one is to go on; it is not to be asked at once again."""


def paced(
    body: UpstreamBody,
    clock: IReactorTime,
    pace: UpstreamsSettings,
    leave: Callable[[str], Awaitable[bool]],
) -> UpstreamBody:
    """Pass on the body of an upstream's answer. Raises TooSlow between two chunks.

    An upstream that sends nothing at all is for the deadlines of the connection.

    :param leave: asked, each time that the pace was not kept, whether to leave the source.
    """

    async def chunks() -> AsyncIterator[bytes]:
        count, waited_s, since = 0, 0.0, clock.seconds()
        async for chunk in body:
            count += len(chunk)
            waited_s += clock.seconds() - since
            yield chunk
            if waited_s >= pace.min_receive_window_s:
                reason = f"sent {count} bytes in {waited_s:.0f} s"
                if not is_kept(pace, count, waited_s) and await leave(reason):
                    raise TooSlow(reason, timed_out=True)
                count, waited_s = 0, 0.0
            since = clock.seconds()

    return PassedBody.over(body, chunks(), lambda: None)


def followed(
    body: UpstreamBody,
    clock: IReactorTime,
    pace: UpstreamsSettings,
    took: Callable[[int], object],
    overtake: Callable[[], Awaitable[bool]],
) -> UpstreamBody:
    """Pass on the body of another process of this cache, which holds the lease of the NAR.

    A holder may be as slow as its upstream is. While it does not keep the pace, or is silent, its
    lease is tried for. Where the lease is free, TooSlow ends the body.

    :param took: told of each number of bytes.
    :param overtake: takes the lease if it is free; says whether it was.
    """
    follower = _Follower(body, clock, pace, took, overtake)
    return PassedBody.over(body, follower.chunks(), follower.closed)


class _Follower:
    """Measures the body of a holder beside its bytes, since these may not come."""

    def __init__(
        self,
        body: UpstreamBody,
        clock: IReactorTime,
        pace: UpstreamsSettings,
        took: Callable[[int], object],
        overtake: Callable[[], Awaitable[bool]],
    ) -> None:
        self._body = body
        self._clock = clock
        self._pace = pace
        self._took = took
        self._overtake = overtake
        self._count = 0
        self._is_left = False
        self._watch: Deferred[None] | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        self._watch = Deferred.fromCoroutine(self._look())
        self._watch.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            async for chunk in self._body:
                self._count += len(chunk)
                self._took(len(chunk))
                yield chunk
        except Unavailable:
            if not self._is_left:
                raise
        if self._is_left:
            raise TooSlow("the process that fetches it was too slow, and its lease is free")

    async def _look(self) -> None:
        """Look at the pace again and again, and at the lease where it is not kept."""
        look_s = min(LOOK_S, self._pace.min_receive_window_s)
        while True:
            before = self._count
            await deferLater(self._clock, look_s)
            is_enough = self._count > before and is_kept(self._pace, self._count - before, look_s)
            if not is_enough and await self._overtake():
                self._is_left = True
                self._body.close()
                return

    def closed(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
