"""A connection of a client with limits: the size and time of a head, idle times, the end.

It is the connection of `twisted.web` with a deadline for heads, and with limits from the settings.
`channel` adds the short cuts, and `borrowed` lists the private names of Twisted used here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from ncps.aio.streams import unsent
from ncps.web.state import SiteState


class BoundedChannel(HTTPChannel):
    """A connection that takes no more time and memory than the settings allow."""

    site: SiteState
    transport: Any
    _head_call: IDelayedCall | None = None
    _lingering: IDelayedCall | None = None
    _left_when_idle = 0
    _has_body = False
    is_last = False
    """Whether the connection accepts no request after the present one."""
    _is_between = False
    """Whether the last request was answered completely, and no line of another one has come."""

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self.totalHeadersSize = self.MAX_LENGTH = self.site.limits.max_header_size_bytes
        self.maxHeaders = self.site.limits.max_headers
        super().connectionMade()
        self._is_between = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self.head_complete()
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)

    def lineReceived(self, line: bytes) -> None:
        """See `LineReceiver`: a request has begun, or an empty line before one."""
        self._is_between = False
        super().lineReceived(line)

    def requestDone(self, request: Request) -> None:
        """See `HTTPChannel`: a response is complete."""
        if self.is_last or self.site.is_draining:
            self.persistent = 0
        self._left_when_idle = 0
        self._is_between = bool(self.persistent)
        super().requestDone(request)
        self._watch_head()

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers | Any
    ) -> None:
        """Write the head in one piece, and not in many small ones as `HTTPChannel` does."""
        lines = [b"%b %b %b\r\n" % (version, code, reason)]
        for name, values in headers.getAllRawHeaders():
            lines.extend([b"%b: %b\r\n" % (name, value) for value in values])
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def expect_body(self) -> None:
        """Stop the idle timeout: the page of a request times its body."""
        self._has_body = True
        self.setTimeout(None)

    def expect_bulk(self, size: int) -> None:
        """Read up to `size` bytes of a body in one call: a call costs more than its bytes."""
        self.transport.bufferSize = size

    def allContentReceived(self) -> None:
        """See `HTTPChannel`: it stops the idle timeout, and `requestDone` starts it again."""
        if self._has_body:
            self.transport.bufferSize = FileDescriptor.bufferSize
            self._has_body = False
            self.setTimeout(self.site.limits.idle_timeout_s)
        super().allContentReceived()

    def pause_body(self) -> None:
        """Stop reading the body for now."""
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Go on reading, unless the client has to take bytes first."""
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()

    @property
    def is_idle(self) -> bool:
        """Whether no byte of any request was received since the last response."""
        return not self.requests and not self._buffer

    def end(self) -> None:
        """See `ClientConnection`."""
        self.is_last = True
        if self.is_idle:
            self.loseConnection()

    def _watch_head(self) -> None:
        """Start the deadline if a head has begun and is not complete; else stop it."""
        if self.is_idle or self._handlingRequest or self._has_body:
            self.head_complete()
        elif self._head_call is None:
            self._head_call = self.callLater(self.site.limits.header_timeout_s, self._head_too_slow)

    def head_complete(self) -> None:
        """Stop the deadline of the head."""
        if self._head_call is not None:
            self._head_call.cancel()
            self._head_call = None

    def _head_too_slow(self) -> None:
        self._head_call = None
        self._close_with(b"408 Request Timeout", "server-header-timeout")

    def lineLengthExceeded(self, line: bytes) -> None:
        """See `LineReceiver`."""
        self._close_with(b"431 Request Header Fields Too Large", "server-max-header-size")

    def _respondToBadRequestAndDisconnect(self) -> None:
        """See `HTTPChannel`, which calls this for every kind of wrong head."""
        if self._lingering is not None:
            return
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.lineLengthExceeded(b"")
        elif self._receivedHeaderCount > self.maxHeaders:
            self._close_with(b"431 Request Header Fields Too Large", "server-max-headers")
        else:
            super()._respondToBadRequestAndDisconnect()

    def _close_with(self, status: bytes, limit: str) -> None:
        """Answer an incomplete head that exceeds a limit, and close.

        :param limit: the flag of the setting that the head exceeds.
        """
        self.site.metrics.limit_reached(limit).inc()
        self.clearLineBuffer()
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.linger()

    def linger(self) -> None:
        """Send the written bytes and close, but first read and drop bytes for a while.

        To close a socket with unread bytes resets it, and the client may never see the answer.
        """
        if self._lingering is not None:
            return
        self._is_between = False
        self.head_complete()
        self.setTimeout(None)
        self._lingering = self.callLater(self.site.linger_s, self._lingered)
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is not None:
            half_close()

    def _lingered(self) -> None:
        if unsent(self.transport):
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def timeoutConnection(self) -> None:
        """See `TimeoutMixin`: close, unless the client is still reading an earlier response."""
        left, before = unsent(self.transport), self._left_when_idle
        limits = self.site.limits
        least = max(1.0, limits.min_send_rate_bytes * limits.idle_timeout_s)
        if left and (not before or before - left >= least):
            self._left_when_idle = left
            self.setTimeout(self.timeOut)
        else:
            if left:
                self.site.metrics.limit_reached("server-min-send-rate").inc()
            super().timeoutConnection()
