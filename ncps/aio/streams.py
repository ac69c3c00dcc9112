"""The two adapters between Twisted's producers and consumers and plain loops.

Bytes flow by pulling: `async for chunk in body: await out.write(chunk)`. `BodyReader` makes the
first half of that line from a response of a server, `ResponseWriter` the second half from a request
of a client. Both limit their memory by pausing the other side. Both give up a peer that makes no
progress; their timer is set again only when it fires.
"""

from __future__ import annotations

import fcntl
import termios
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from ncps.aio.reasons import reason_of
from ncps.aio.waiting import Wakeup
from ncps.errors import NcpsError, Unavailable, Unconfirmed

HIGH_WATER = 1024 * 1024
"""Bytes a BodyReader holds before it pauses its source; it resumes at half of them."""

RECEIVE_SIZE = 512 * 1024
"""Bytes of one read from a socket, at most: large chunks cost no more than small ones."""


class ClientGone(NcpsError):
    """The client has left or reads no more bytes: no error can be sent to it."""


class _Watch:
    """A timer that calls `expired` when `stop` was not called for `after` seconds after `start`."""

    def __init__(self, clock: IReactorTime, after: float, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._after = after
        self._expired = expired
        self._since: float | None = None
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        self._since = self._clock.seconds()
        if self._call is None:
            self._call = self._clock.callLater(self._after, self._look)

    def stop(self) -> None:
        self._since = None

    def close(self) -> None:
        self._since = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._since is None:
            return
        left = self._since + self._after - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._expired()


def unsent(transport: Any) -> int:
    """Return how many written bytes the peer of a socket transport has not acknowledged.

    It adds Twisted's buffers and the kernel's queue (Linux, `SIOCOUTQ`). Between writes the number
    falls only when the peer reads, so it distinguishes a slow peer from a dead one. It is 0 for a
    transport that is no socket.
    """
    buffered = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    buffered += getattr(transport, "_tempDataLen", 0) + getattr(transport, "file_left", 0)
    try:
        queue = fcntl.ioctl(transport.getHandle().fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (AttributeError, OSError, ValueError):
        return int(buffered)
    return int(buffered) + int.from_bytes(queue, "little")


@frozen
class SendLimits:
    """The limits of a slow client; a slower one loses its connection.

    :ivar stall_s: seconds within which it must read at least one byte.
    :ivar rate: bytes that it must read each second, on average over `window_s`.
    :ivar window_s: seconds of waiting for the client; waiting for the source does not count.
    """

    stall_s: float
    rate: float
    window_s: float


@implementer(IPushProducer)
class ResponseWriter:
    """A writer of a response body at the pace of the client that reads it.

    It registers itself with the outlet, and its owner must close it. It measures the client with
    `unsent`, and aborts a connection that is slower than its limits within twice their time.

    :param outlet: the request, not yet disconnected.
    :param unsent: returns how many bytes are on their way to the client; only differences matter.
    :param abort: cuts the connection; called once, with "stalled" or "slow".
    """

    def __init__(
        self,
        outlet: IConsumer,
        *,
        clock: IReactorTime,
        limits: SendLimits,
        unsent: Callable[[], int],
        abort: Callable[[str], None],
    ) -> None:
        self._outlet = outlet
        self._clock = clock
        self._unsent = unsent
        self._abort = abort
        self._limits = limits
        self._watch = _Watch(clock, min(limits.stall_s, limits.window_s), self._look)
        self._seen = 0
        self._seen_at = 0.0
        self._waited = 0.0  # seconds in this window, up to `_waiting_since`
        self._waiting_since = 0.0
        self._taken: int | None = None  # by the client, when the window began
        self._paused = False
        self._gone = False
        self._closed = False
        self._wakeup = Wakeup()
        self.written = 0
        outlet.registerProducer(self, True)

    async def write(self, data: bytes) -> None:
        """Write, then wait for a slow client. Raises ClientGone if it left or stalls."""
        if self._gone:
            raise ClientGone("client has left")
        self._outlet.write(data)
        await self.sent(len(data))

    async def sent(self, count: int) -> None:
        """Wait as `write` does, after `count` bytes that were written without it.

        Raises ClientGone if the client left or stalls.
        """
        self.written += count
        if self._gone:
            raise ClientGone("client has left")
        if self._paused:
            await self._drained()

    def close(self) -> None:
        """Release the outlet and the timer; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        if not self._gone:
            self._outlet.unregisterProducer()

    async def _drained(self) -> None:
        self._seen = self._unsent()
        if self._taken is None:
            self._taken = self.written - self._seen
        self._seen_at = self._waiting_since = self._clock.seconds()
        self._watch.start()
        try:
            await self._wakeup.wait()
        finally:
            self._watch.stop()
        if self._gone:
            raise ClientGone("client has left")
        self._waited += self._clock.seconds() - self._waiting_since
        if self._waited >= self._limits.window_s and self._is_too_slow(self._unsent()):
            self._cut("slow")
            raise ClientGone("client is too slow")

    def _look(self) -> None:
        """Measure the client's progress; called regularly during a wait."""
        now, left = self._clock.seconds(), self._unsent()
        if left != self._seen:
            self._seen, self._seen_at = left, now
        elif now - self._seen_at >= self._limits.stall_s:
            self._cut("stalled")
            return
        self._waited += now - self._waiting_since
        self._waiting_since = now
        if self._waited >= self._limits.window_s and self._is_too_slow(left):
            self._cut("slow")
        else:
            self._watch.start()

    def _is_too_slow(self, left: int) -> bool:
        """Return whether the client was too slow in the window that is over; begin the next."""
        assert self._taken is not None
        taken = self.written - left
        is_slow = taken - self._taken < self._limits.rate * self._waited
        self._taken, self._waited = taken, 0.0
        return is_slow

    def _cut(self, why: str) -> None:
        self._abort(why)
        self.stopProducing()

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._paused = False
        self._wakeup.wake()

    def stopProducing(self) -> None:
        """See `IPushProducer`: the connection is gone."""
        self._gone = True
        self._wakeup.wake()


class BodyReader(Protocol):
    """The body of a server's response: `response.deliverBody(reader)`, then iterate once.

    The iteration ends after the whole body. It raises Unavailable if the connection broke, and
    also, with `timed_out`, if no byte came for `idle_after` seconds of waiting; Unconfirmed if only
    the end of the connection says that the body has ended (`PotentialDataLoss`). It pauses the
    transport at `high_water` bytes. The one consumer closes it, also after an error; closing before
    the end aborts the connection.
    """

    def __init__(
        self, *, clock: IReactorTime, idle_after: float, high_water: int = HIGH_WATER
    ) -> None:
        self._high_water = high_water
        self._idle_after = idle_after
        self._watch = _Watch(clock, idle_after, self._idle)
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._failure: Unavailable | None = None
        self._wakeup = Wakeup()
        self.received = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            await self._more()
        chunk = self._chunks.popleft()
        self._held -= len(chunk)
        if self._paused and self._held * 2 <= self._high_water:
            self._paused = False
            if not self._ended and self.transport is not None:
                self.transport.resumeProducing()  # type: ignore[attr-defined]
        return chunk

    @property
    def has_ended(self) -> bool:
        """Whether no further byte comes: the body has ended, or broke off, or was closed."""
        return self._ended

    def complete(self, data: bytes) -> None:
        """Add the last bytes of a body, and end it well."""
        if self._ended:
            return
        if data:
            self._chunks.append(data)
            self._held += len(data)
            self.received += len(data)
        self._end(None)

    def close(self) -> None:
        """Drop all unread bytes; before the end of the body, abort the connection. Idempotent."""
        if not self._ended:
            self._fail(Unavailable("body was closed before its end", kind="broken"))
        self._chunks.clear()
        self._watch.close()

    async def _more(self) -> None:
        self._watch.start()
        try:
            await self._wakeup.wait()
        finally:
            self._watch.stop()

    def _idle(self) -> None:
        self._fail(
            Unavailable(f"no byte of the body for {self._idle_after:g} s", timed_out=True),
        )

    def _fail(self, error: Unavailable) -> None:
        """End with an error: drop all unread bytes, and abort the connection."""
        self._end(error)
        self._chunks.clear()
        self._held = 0
        if self.transport is not None:
            _abort(self.transport)

    def _end(self, error: Unavailable | None) -> None:
        self._ended = True
        self._failure = error
        self._watch.close()
        self._wakeup.wake()

    def connectionMade(self) -> None:
        """See `IProtocol`: abort if the reader was closed before the body began."""
        if self._ended:
            _abort(self.transport)
        socket = _behind(self.transport)
        if hasattr(socket, "bufferSize"):  # TLS has none; it delivers record by record
            socket.bufferSize = RECEIVE_SIZE

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._ended:
            return
        self._chunks.append(data)
        self._held += len(data)
        self.received += len(data)
        if self._held >= self._high_water and not self._paused:
            self._paused = True
            assert self.transport is not None
            self.transport.pauseProducing()  # type: ignore[attr-defined]
        self._wakeup.wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`: the body ended, or broke off."""
        if self._ended:
            return
        if reason.check(ResponseDone) is not None:
            self._end(None)
        elif reason.check(PotentialDataLoss) is not None:
            text = "the connection ended, and the answer gave no length"
            self._end(Unconfirmed(text, kind="broken"))
        else:
            self._end(Unavailable(f"body broke off: {_describe(reason)}", kind="broken"))


def _describe(reason: Failure) -> str:
    """Name the cause of a failure; `ResponseFailed` only wraps a list of causes."""
    inner = getattr(reason.value, "reasons", None)
    cause = inner[-1].value if inner else reason.value
    return reason_of(cause)


def _behind(transport: Any) -> Any:
    """Return the transport behind Twisted's proxy; None if the proxy has released it."""
    return getattr(transport, "_producer", transport)


def _abort(transport: Any) -> None:
    """Abort the connection under a response body.

    Twisted's proxy has no abort. Its `loseConnection` waits for ever for a paused TLS connection
    whose peer continues to send. So use the transport behind it.
    """
    behind = _behind(transport)
    if behind is not None:
        behind.abortConnection()
