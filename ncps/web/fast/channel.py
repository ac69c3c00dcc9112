"""A connection of a client: what may arrive on it, in what time, and which road it takes.

Stock `twisted.web` with a deadline for heads, bounds that are settings, and two short cuts. A
head whose bytes were parsed before is not parsed again; and if such a head asks for no more than
a narinfo whose answer lies ready, the answer is sent at once, without request or resource. Both
are taken only between requests and only by one whole head that arrives in one piece. Everything
else goes to `HTTPChannel.dataReceived` unchanged.

The private names of Twisted that are used here, in `request` and in `transport` are listed in
`borrowed`, under a test that fails when Twisted renames one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from ncps.aio.streams import unsent
from ncps.web.clients import plain_address
from ncps.web.fast.heads import Head, KnownHead, head_of
from ncps.web.fast.hot import HotNarInfo
from ncps.web.fast.ledger import Access
from ncps.web.fast.transport import PromptMixin
from ncps.web.state import SiteState

SEND_LIMIT = 1024 * 1024  # bytes offered to the kernel at once; stock cuts at 128 KiB


class NcpsChannel(HTTPChannel):
    """A connection of a client."""

    site: SiteState
    transport: Any
    _prompt: PromptMixin | None = None
    _send: Callable[[bytes], None]
    _peer: IAddress
    _host: IAddress
    _head_call: IDelayedCall | None = None
    _lingering: IDelayedCall | None = None
    _left_when_idle = 0
    _is_between = False
    """Whether the last request was answered in full, and not even a line of another has come."""
    client = ""
    """Address that the connection comes from; of a UNIX socket, which has none, `clients.UNIX`."""
    is_proxied = False
    """Whether it comes from a proxy that is believed when it says who asks."""
    new_head: Head | None = None  # the one being parsed, if it came in one piece

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self._peer, self._host = self.transport.getPeer(), self.transport.getHost()
        self.client = plain_address(self._peer)
        self.is_proxied = self.site.proxies.trusts(self.client)
        self.totalHeadersSize = self.MAX_LENGTH = self.site.limits.max_header_size_bytes
        self.maxHeaders = self.site.limits.max_headers
        self.transport.SEND_LIMIT = SEND_LIMIT
        if isinstance(self.transport, PromptMixin):
            self._prompt, self._send = self.transport, self.transport.send_now
        else:  # TLS, and tests
            self._send = self.transport.write
        super().connectionMade()
        self._is_between = True
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `IProtocol`."""
        self.head_complete()
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)
        self.site.closed(self)

    def getPeer(self) -> IAddress:
        """See `ITransport`; every request asks, which stock would pass on to the kernel."""
        return self._peer

    def getHost(self) -> IAddress:
        """See `ITransport`."""
        return self._host

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`: take a short cut if there is one."""
        known = None
        if self._is_between and not self._buffer and len(data) <= self.totalHeadersSize:
            site, at = self.site, data.find(b" ", 4)
            known = site.heads.find(data[at:])
            if known is not None and known.is_plain:
                hot = site.hot.find(data[:at])
                if (
                    hot is not None
                    and site.answering < site.limits.max_requests
                    and hot.may_repeat()
                ):
                    self._repeat(hot, known)
                    return
        if self._prompt is None:
            self._receive(data, known)
            return
        self._prompt.cork()
        try:
            self._receive(data, known)
        finally:
            self._prompt.uncork()

    def _receive(self, data: bytes, known: KnownHead | None) -> None:
        if self._lingering is not None:
            return
        is_between = self._is_between and not self._buffer
        head = head_of(data) if is_between and len(data) <= self.totalHeadersSize else None
        if head is not None and known is not None:
            self._known_head_received(head, known)
            return
        self.new_head = head
        super().dataReceived(data)
        self._watch_head()

    def lineReceived(self, line: bytes) -> None:
        """See `LineReceiver`: a request has begun, or an empty line before one."""
        self._is_between = False
        super().lineReceived(line)

    def client_of(self, headers: Headers) -> str:
        """Address of whoever sent a request on this connection."""
        return self.site.proxies.client(self.client, headers) if self.is_proxied else self.client

    def _repeat(self, hot: HotNarInfo, known: KnownHead) -> None:
        """Answer as the page has answered before; what `Request` and `requestDone` do, in short."""
        site = self.site
        began = site.clock.seconds()
        self.resetTimeout()
        self._left_when_idle = 0
        self._send(b"".join((site.opening(), hot.head, hot.text)))
        ended = site.clock.seconds()
        site.ledger.add(
            Access(
                ended,
                hot.route,
                "GET",
                hot.path,
                200,
                len(hot.text),
                ended - began,
                True,
                hot.cache,
                hot.digest,
                hot.upstream,
                self.client_of(known.headers),
                True,
            )
        )

    def _known_head_received(self, head: Head, known: KnownHead) -> None:
        """Do what `HTTPChannel` does at the end of a head without a body."""
        self._is_between = False
        self.new_head = None
        self.resetTimeout()
        request = self.requestFactory(self, 0)
        request.requestHeaders = known.headers
        self.requests.append(request)
        self._command, self._path, self._version = b"GET", head.target, b"HTTP/1.1"
        request.gotLength(0)
        self.allContentReceived()

    def requestDone(self, request: Request) -> None:
        """See `HTTPChannel`: a response is complete."""
        if self.site.is_draining:
            self.persistent = 0
        self._left_when_idle = 0
        self._is_between = bool(self.persistent)
        super().requestDone(request)
        self._watch_head()

    @property
    def is_idle(self) -> bool:
        """Whether no byte of any request was received since the last response."""
        return not self.requests and not self._buffer

    def _watch_head(self) -> None:
        """Have the deadline run exactly while a request has begun and is not complete."""
        if self.is_idle or self._handlingRequest:
            self.head_complete()
        elif self._head_call is None:
            self._head_call = self.callLater(self.site.limits.header_timeout_s, self._head_too_slow)

    def head_complete(self) -> None:
        """Stop the deadline: what follows counts as another request."""
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
        """See `HTTPChannel`, which has one answer for whatever is wrong with a head."""
        if self._lingering is not None:
            return
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.lineLengthExceeded(b"")
        elif self._receivedHeaderCount > self.maxHeaders:
            self._close_with(b"431 Request Header Fields Too Large", "server-max-headers")
        else:
            super()._respondToBadRequestAndDisconnect()

    def _close_with(self, status: bytes, limit: str) -> None:
        """Answer what is not yet a request, and close.

        :param limit: the setting that was overstepped.
        """
        self.site.metrics.limit_reached(limit).inc()
        self.clearLineBuffer()
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.linger()

    def linger(self) -> None:
        """Send what is written and close, but read on for a while, and drop it.

        Closing a socket with unread bytes resets it, and the client might never see the answer.
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
        """See `TimeoutMixin`: silent for too long, unless it still takes an earlier response."""
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
