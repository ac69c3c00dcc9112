"""Where connections and requests enter: their limits, their accounting and their end.

Stock `twisted.web` with four things added. A connection must finish the head of a request within
a deadline, however it trickles. A request that brings a body is refused before the body is read,
as long as no route takes one. Connections, heads and requests under way are bounded (`Limits`).
Every request, also one whose client left, is counted once and gives one structured log event. The
names of Twisted that are private are all used here, each under a test that fails when Twisted
renames it.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from time import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from ncps.metrics import METHODS, NO_ROUTE, OTHER_METHOD, PROBES, Metrics
from ncps.streams import unsent
from ncps.web import accesslog, respond
from ncps.web.heads import Head, KnownHeads, head_of
from ncps.web.limits import Limits, Peers

_ALWAYS = frozenset(path.encode("ascii") for path in PROBES)  # by these one learns that we are busy
SEND_LIMIT = 1024 * 1024  # bytes offered to the kernel at once; stock cuts at 128 KiB


class NcpsRequest(Request):
    """A request that refuses bodies, knows when its client has gone, and is accounted for."""

    defaultContentType = None
    site: NcpsSite
    channel: NcpsChannel

    route = NO_ROUTE
    """Pattern of the path, for metrics."""
    cache = ""
    """Outcome, if the cache was asked; likewise `digest` (or NAR file name) and `upstream`."""
    digest = ""
    upstream = ""
    gone = False
    """Whether the connection is closed: there is nobody to write to, and nothing to finish."""
    began = -1.0
    """Clock's time when the request was complete; negative before."""
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """See `twisted.web.http.Request`: the head is complete, a body follows unless 0."""
        self.content = BytesIO()
        if length != 0:
            self._refused = True
            self.requestHeaders.removeHeader(b"Expect")  # else Twisted would say 100 Continue
            self._begin(self.channel._command, self.channel._path, self.channel._version)
            respond.refuse_body(self)
            self.site.log(self)

    def handleContentChunk(self, data: bytes) -> None:
        """See `twisted.web.http.Request`: drops what was refused."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See `twisted.web.http.Request`."""
        if not self._refused:
            self._begin(command, path, version)
            self.process()

    def process(self) -> None:
        """See `twisted.web.server.Request`; the root is a leaf, so that nothing is to be walked."""
        if self.site.answering > self.site.limits.requests and self.path not in _ALWAYS:
            self.site.metrics.limit_reached("server-max-requests").inc()
            respond.tell(self, 503, "too busy", retry_after=respond.RETRY_AFTER)
            return
        try:
            self.render(self.site.resource)
        except Exception:  # noqa: BLE001 - nothing awaits here; a request must not take the rest down
            self.processingFailed(Failure())

    def _begin(self, command: bytes, target: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, target, version
        self.path = target.partition(b"?")[0]
        self.args = {}
        self.channel.head_complete()
        self.site = self.channel.site
        if self.channel.new_head is not None:
            self.site.heads.learn(self.channel.new_head, self.requestHeaders)
        self.began = self.site.clock.seconds()
        self.site.begun()
        self.setHeader(b"Server", b"ncps")
        self.setHeader(b"Date", self.site.date())
        if self.site.is_draining:
            self.channel.persistent = 0
            self.setHeader(b"Connection", b"close")

    def processingFailed(self, reason: Failure) -> Failure:
        """See `twisted.web.server.Request`: an error of ours outside of any coroutine."""
        respond.fail(self, reason)
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """See `twisted.web.http.Request`: the client left before the response was finished."""
        self.gone = True
        if self.began >= 0 and not self._refused:
            self.site.log(self)
        super().connectionLost(reason)

    @property
    def elapsed(self) -> float:
        """Seconds since the request was complete."""
        return self.site.clock.seconds() - self.began

    def unsent(self) -> int:
        """Bytes on this connection that the client has not taken."""
        return unsent(self.channel.transport)

    def abort(self) -> None:
        """Cut the connection: the only honest end of a response that cannot be completed."""
        if not self.gone:
            self.channel.transport.abortConnection()


class NcpsChannel(HTTPChannel):
    """A connection of a client."""

    site: NcpsSite
    transport: Any
    _peer: IAddress
    _host: IAddress
    _head_call: IDelayedCall | None = None
    _lingering: IDelayedCall | None = None
    _left_when_idle = 0
    new_head: Head | None = None  # the one being parsed, if it came in one piece

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self._peer, self._host = self.transport.getPeer(), self.transport.getHost()
        self.totalHeadersSize = self.MAX_LENGTH = self.site.limits.head_size
        self.maxHeaders = self.site.limits.headers
        self.transport.SEND_LIMIT = SEND_LIMIT
        super().connectionMade()
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
        """See `IProtocol`; bytes that were parsed before are not parsed again."""
        if self._lingering is not None:
            return
        is_between = self.is_idle and self.line_mode and self.persistent
        head = head_of(data) if is_between and len(data) <= self.totalHeadersSize else None
        headers = None if head is None else self.site.heads.find(head)
        self.new_head = head if headers is None else None
        if head is not None and headers is not None:
            self._known_head_received(head, headers)
        else:
            super().dataReceived(data)
            self._watch_head()

    def _known_head_received(self, head: Head, headers: Headers) -> None:
        """Do what `HTTPChannel` does at the end of a head without a body."""
        self.resetTimeout()
        request = self.requestFactory(self, 0)
        request.requestHeaders = headers
        self.requests.append(request)
        self._command, self._path, self._version = b"GET", head.target, b"HTTP/1.1"
        request.gotLength(0)
        self.allContentReceived()

    def requestDone(self, request: Request) -> None:
        """See `HTTPChannel`: a response is complete."""
        if self.site.is_draining:
            self.persistent = 0
        self._left_when_idle = 0
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
            self._head_call = self.callLater(self.site.limits.head, self._head_too_slow)

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
        self.head_complete()
        self.setTimeout(None)
        self._lingering = self.callLater(self.site.limits.linger, self._lingered)
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
        if left and (not before or before - left >= max(1.0, limits.rate * limits.idle)):
            self._left_when_idle = left
            self.setTimeout(self.timeOut)
        else:
            if left:
                self.site.metrics.limit_reached("server-min-send-rate").inc()
            super().timeoutConnection()


AccessLog = Callable[[NcpsRequest], object]
"""Called once for each request that has ended, well or not."""


class NcpsSite(Site):
    """The factory of the connections, and what they share.

    :param root: answers every request; see `routes.Routes`.
    :param access_log: what is told of each request; by default one event of `twisted.logger`.
    """

    protocol = NcpsChannel  # type: ignore[assignment]  # the stock wrapper only serves HTTP/2
    requestFactory = NcpsRequest
    noisy = False

    def __init__(
        self,
        root: IResource,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        limits: Limits | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self.clock = clock
        self.metrics = metrics
        self.limits = limits or Limits()
        self.is_draining = False
        self._access_log = access_log or accesslog.write
        self.answering = 0
        self._channels: set[NcpsChannel] = set()
        self._peers = Peers()
        self._emptied: Deferred[None] | None = None
        self._date = (0, b"")
        self.heads = KnownHeads()
        super().__init__(
            root, parsePOSTFormSubmission=False, timeout=self.limits.idle, reactor=clock
        )

    def startFactory(self) -> None:
        """See `Factory`: stock would open its own access log here and tick every second."""

    def stopFactory(self) -> None:
        """See `Factory`."""

    def date(self) -> bytes:
        """The time for Date headers, written anew once a second."""
        now = int(time())
        if now != self._date[0]:
            self._date = now, datetimeToString(now)
        return self._date[1]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `Factory`: None, which closes the connection, when there are too many."""
        limits, of_address = self.limits, self.limits.connections_per_address
        if len(self._channels) >= limits.connections:
            return self._refuse("server-max-connections")
        if of_address and self._peers.count(addr) >= of_address:
            return self._refuse("server-max-connections-per-address")
        return super().buildProtocol(addr)

    def _refuse(self, limit: str) -> None:
        self.metrics.connections_refused.inc()
        self.metrics.limit_reached(limit).inc()

    def begun(self) -> None:
        """Count a request in; `log` counts it out."""
        self.answering += 1
        self.metrics.active_requests.inc()

    def opened(self, channel: NcpsChannel) -> None:
        """Count a connection in."""
        self._channels.add(channel)
        self._peers.opened(channel.getPeer())
        self.metrics.connections.set(len(self._channels))

    def closed(self, channel: NcpsChannel) -> None:
        """Count a connection out."""
        self._channels.discard(channel)
        self._peers.closed(channel.getPeer())
        self.metrics.connections.set(len(self._channels))
        if not self._channels and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    async def drain(self, deadline: float) -> int:
        """Let running responses end, take no further request, then cut what is left.

        Returns how many connections were cut after `deadline` seconds. Idle ones close at once.
        """
        self.is_draining = True
        for channel in list(self._channels):
            if channel.is_idle:
                channel.loseConnection()
        late = self.clock.callLater(deadline, self._cut)
        self._cut_count = 0
        if self._channels:
            self._emptied = Deferred()
            await self._emptied
        if late.active():
            late.cancel()
        return self._cut_count

    def _cut(self) -> None:
        self._cut_count = len(self._channels)
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def log(self, request: NcpsRequest) -> None:  # type: ignore[override]
        """See `HTTPFactory`: account for a request that has ended."""
        metrics = self.metrics
        self.answering -= 1
        metrics.active_requests.dec()
        method = request.method.decode("ascii")
        metrics.request_seconds(
            request.route, method if method in METHODS else OTHER_METHOD, str(request.code)
        ).observe(request.elapsed)
        if request.sentLength:
            metrics.bytes_served(request.route).inc(request.sentLength)
        if request.route not in PROBES:
            self._access_log(request)
