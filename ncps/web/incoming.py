"""The body of a request, which a page reads piece by piece, at its own pace.

The connection stops reading while `MOST_HELD` bytes wait for the page. A page can ask for a large
body in large pieces, because each piece costs it several coroutines and a thread. If a client sends
nothing for `server-receive-stall-timeout`, or less than `server-min-receive-rate` on average, the
body ends with an error. Only the time counts in which the page waits for the client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import within
from ncps.errors import SlowClient, TooLarge
from ncps.settings.schema.server import ServerSettings

MOST_HELD: Final = 256 * 1024
"""Bytes of a body that wait in memory before the connection stops reading."""

BULK: Final = 8 * 1024 * 1024
"""Bytes that all bodies together gather at the same time, about."""

LEAST_GATHERED: Final = 64 * 1024
MOST_GATHERED: Final = 512 * 1024
"""Bytes of a piece of one body, at least and at most."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyChannel(Protocol):
    """The connection of a body."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def pause_body(self) -> None:
        """Stop reading for now."""

    def resume_body(self) -> None:
        """Read on."""

    def expect_bulk(self, size: int) -> None:
        """Read up to `size` bytes in one call, until the body has ended."""


@frozen(kw_only=True)
class Pace:
    """The pace that a client has to keep, in seconds and bytes a second.

    :param reached: called with the flag of the limit that a client exceeds.
    """

    stall_s: float
    least_rate: int
    window_s: float
    reached: Callable[[str], object]

    @classmethod
    def of(cls, limits: ServerSettings, reached: Callable[[str], object]) -> Pace:
        """Take the pace from the settings."""
        return cls(
            stall_s=limits.receive_stall_timeout_s,
            least_rate=limits.min_receive_rate_bytes,
            window_s=limits.min_send_window_s,
            reached=reached,
        )


class IncomingBody:
    """The bytes that follow the head of a request, for one reader.

    :param length: the length that the client has announced; None if the body comes in chunks.
    :param is_expectant: whether the client sends nothing before 100 Continue (`Expect`).
    :ivar received: number of bytes that have come.
    :ivar is_whole: whether all bytes have come.
    """

    def __init__(
        self,
        channel: BodyChannel,
        clock: IReactorTime,
        pace: Pace,
        *,
        length: int | None,
        is_expectant: bool,
    ) -> None:
        self.length = length
        self.received = 0
        self.is_whole = length == 0
        self._channel = channel
        self._clock = clock
        self._pace = pace
        self._is_expectant = is_expectant
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._share: Callable[[], int] | None = None
        self._is_paused = False
        self._reader: Deferred[None] | None = None
        self._came_at = 0.0
        self._waited_s = 0.0
        self._received_before = 0

    def __aiter__(self) -> IncomingBody:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Raises SlowClient if the client does not keep the pace."""
        while not self._has_piece:
            if self.is_whole:
                raise StopAsyncIteration
            await self._wait()
        piece = self._take()
        self._held -= len(piece)
        if self._is_paused and self._held < self._most_held // 2:
            self._is_paused = False
            self._channel.resume_body()
        return piece

    def gather(self, count: Callable[[], int]) -> None:
        """Return large pieces from now on.

        :param count: returns the number of bodies that are arriving, this one included; they share
            the memory.
        """
        self._share = lambda: max(LEAST_GATHERED, min(MOST_GATHERED, BULK // max(1, count())))
        self._channel.expect_bulk(self._share())

    async def read(self, most: int) -> bytes:
        """Return the whole body. Raises TooLarge if it has more than `most` bytes."""
        if self.length is not None and self.length > most:
            raise TooLarge(f"a body of {self.length} bytes; at most {most} are accepted here")
        pieces, size = [], 0
        async for piece in self:
            size += len(piece)
            if size > most:
                raise TooLarge(f"a body of more than {most} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def discard(self) -> None:
        """Read the body to its end and drop it, unless the client still waits for 100 Continue."""
        if self._is_expectant and not self.received:
            return
        async for _ in self:
            pass

    @property
    def _most_held(self) -> int:
        return MOST_HELD if self._share is None else 2 * self._share()

    @property
    def _has_piece(self) -> bool:
        if self._share is None or self.is_whole or self._is_paused:
            return bool(self._pieces)
        return self._held >= self._share()

    def _take(self) -> bytes:
        if self._share is None or len(self._pieces) == 1:
            return self._pieces.popleft()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        return piece

    async def _wait(self) -> None:
        """Wait for the client. Raises SlowClient if it does not keep the pace."""
        if self._is_expectant:
            self._is_expectant = False
            self._channel.write(_CONTINUE)
        began = self._came_at = self._clock.seconds()
        is_over = False
        while not is_over:
            is_over = await self._wait_a_while()
            now = self._clock.seconds()
            self._waited_s, began = self._waited_s + now - began, now
            if self._waited_s >= self._pace.window_s:
                self._look_at_rate()

    async def _wait_a_while(self) -> bool:
        """Wait for a piece as long as the client may be silent; return whether one is there."""
        since, reader = self._came_at, Deferred[None]()
        silent_s = self._clock.seconds() - since
        self._reader = reader
        try:
            await within(self._clock, max(0.0, self._pace.stall_s - silent_s), reader)
        except DeferredTimeout:
            if self._came_at > since:
                return False
            self._pace.reached("server-receive-stall-timeout")
            raise SlowClient(f"no byte of the body came for {self._pace.stall_s:g} s") from None
        finally:
            self._reader = None
        return True

    def _look_at_rate(self) -> None:
        came, least = self.received - self._received_before, self._pace.least_rate
        if came < least * self._waited_s and not self.is_whole:
            self._pace.reached("server-min-receive-rate")
            raise SlowClient(f"{came} bytes of the body came in {self._waited_s:.0f} s")
        self._waited_s, self._received_before = 0.0, self.received

    # Called by the connection

    def came(self, data: bytes) -> None:
        """Add bytes from the connection."""
        self.received += len(data)
        self._held += len(data)
        self._pieces.append(data)
        if self._held >= self._most_held and not self._is_paused:
            self._is_paused = True
            self._channel.pause_body()
        if self._has_piece:
            self._wake()
        else:
            self._came_at = self._clock.seconds()

    def ended(self) -> None:
        """Mark the end: no more bytes will come."""
        self.is_whole = True
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)
