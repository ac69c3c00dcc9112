"""Where connections and requests enter: their limits, their accounting and their end.

Stock `twisted.web` with four things added. A connection must finish the head of a request within
a deadline, however it trickles. A request that brings a body is refused before the body is read,
as long as no route takes one. The number of connections is bounded. Every request, also one whose
client left, is counted once and gives one structured log event. The names of Twisted that are
private are all used here, each under a test that fails when Twisted renames it.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from time import time
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from ncps.metrics import METHODS, NO_ROUTE, OTHER_METHOD, PROBES, Metrics
from ncps.streams import unsent
from ncps.web import respond

LONGEST_LOGGED_PATH = 256
SEND_LIMIT = 1024 * 1024
"""Bytes a connection offers the kernel at once; Twisted's 128 KiB cut every chunk in pieces."""


@frozen(kw_only=True)
class Limits:
    """What one client may take of the server; times in seconds.

    :param idle: silence between requests; Nix keeps connections for 90 s.
    :param head: from the first byte of a request to the end of its head.
    :param stall: a response of which the client takes no byte.
    :param linger: a refused body is still read for this long, so that the client sees why.
    :param connections: open at once, of all clients.
    """

    idle: float = 120.0
    head: float = 10.0
    stall: float = 300.0
    linger: float = 2.0
    connections: int = 4096


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
        self.began = self.site.clock.seconds()
        self.site.metrics.active_requests.inc()
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

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self._peer, self._host = self.transport.getPeer(), self.transport.getHost()
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
        """See `IProtocol`."""
        if self._lingering is None:
            super().dataReceived(data)
            self._watch_head()

    def requestDone(self, request: Request) -> None:
        """See `HTTPChannel`: a response is complete."""
        if self.site.is_draining:
            self.persistent = 0
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
        self._close_with(b"408 Request Timeout")

    def lineLengthExceeded(self, line: bytes) -> None:
        """See `LineReceiver`."""
        self._close_with(b"431 Request Header Fields Too Large")

    def _close_with(self, status: bytes) -> None:
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
        left = unsent(self.transport)
        if left and left != self._left_when_idle:
            self._left_when_idle = left
            self.setTimeout(self.timeOut)
        else:
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
    _log = Logger()

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
        self._info = self._log.info  # Twisted makes a logger anew whenever one is asked for
        self._access_log = access_log or self._log_event
        self._channels: set[NcpsChannel] = set()
        self._emptied: Deferred[None] | None = None
        self._date = (0, b"")
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
        if len(self._channels) >= self.limits.connections:
            self.metrics.connections_refused.inc()
            return None
        return super().buildProtocol(addr)

    def opened(self, channel: NcpsChannel) -> None:
        """Count a connection in."""
        self._channels.add(channel)
        self.metrics.connections.set(len(self._channels))

    def closed(self, channel: NcpsChannel) -> None:
        """Count a connection out."""
        self._channels.discard(channel)
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
        metrics.active_requests.dec()
        method = request.method.decode("ascii")
        metrics.request_seconds(
            request.route, method if method in METHODS else OTHER_METHOD, str(request.code)
        ).observe(request.elapsed)
        if request.sentLength:
            metrics.bytes_served(request.route).inc(request.sentLength)
        if request.route not in PROBES:
            self._access_log(request)

    def _log_event(self, request: NcpsRequest) -> None:
        self._info(
            "{method} {path} {status} {bytes} bytes in {duration_ms} ms {cache}",
            method=request.method.decode("ascii"),
            path=request.path[:LONGEST_LOGGED_PATH].decode("ascii", "backslashreplace"),
            status=request.code,
            bytes=request.sentLength,
            duration_ms=round(request.elapsed * 1000, 1),
            complete=not request.gone,
            cache=request.cache,
            hash=request.digest,
            upstream=request.upstream,
            client=_host(request.client),
        )


def _host(peer: Any) -> str:
    """Name a peer without its port; peers on a UNIX socket have no name."""
    return getattr(peer, "host", None) or "unix"
