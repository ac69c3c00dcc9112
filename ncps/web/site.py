"""Where connections enter: how many there may be, what they share, and how they end.

Stock `twisted.web` with four things added. A connection must finish the head of a request within
a deadline, however it trickles. A request that brings a body is refused before the body is read,
as long as no route takes one. Connections, heads and requests under way are bounded
(`ServerSettings`).
Every request, also one whose client left, is counted once and gives one line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Site

from ncps.observe.metrics import Metrics
from ncps.settings.schema.server import ServerSettings
from ncps.web import accesslog
from ncps.web.clients import TrustedProxies, plain_address
from ncps.web.crowd import Crowd
from ncps.web.fast.channel import NcpsChannel
from ncps.web.fast.heads import KnownHeads
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.ledger import Access, Ledger
from ncps.web.limits import Peers
from ncps.web.misled import Misled
from ncps.web.request import SERVER, NcpsRequest

__all__ = ["AccessLog", "NcpsRequest", "NcpsSite"]

AccessLog = Callable[[Sequence[Access]], object]
"""Given all requests that have ended, well or not, each once, many at a time."""


class NcpsSite(Site):
    """The factory of the connections, and what they share.

    :param root: answers every request; see `routes.Routes`.
    :param hot: answers that lie ready; none by default.
    :param access_log: by default `twisted.logger` is told.
    :param proxies: that are believed when they say who asks; by default none is.
    :cvar linger_s: a refused body is still read for this long, so that the client sees why.
    :ivar crowd: lets the ports wait; told by the owner of the ports.
    :ivar is_leaving: whether clients should go elsewhere, though all are served still.
    """

    protocol = NcpsChannel  # type: ignore[assignment]  # the stock wrapper only serves HTTP/2
    requestFactory = NcpsRequest
    noisy = False
    linger_s = 2.0

    def __init__(
        self,
        root: IResource,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        limits: ServerSettings | None = None,
        hot: HotNarInfos | None = None,
        access_log: AccessLog | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        self.clock = clock
        self.metrics = metrics
        self.limits = limits or ServerSettings()
        self.proxies = proxies or TrustedProxies()
        self.is_leaving = False
        self.is_draining = False
        self.answering = 0
        self._channels: set[NcpsChannel] = set()
        self._peers = Peers()
        self.crowd = Crowd()
        self._emptied: Deferred[None] | None = None
        self._cut_count = 0
        self._date = (0, b"")
        self._opening = (b"", b"")
        self.heads = KnownHeads()
        self.misled = Misled(clock)
        self.hot = HotNarInfos(0) if hot is None else hot
        self.ledger = Ledger(
            clock=clock,
            metrics=metrics,
            access_log=access_log or accesslog.AccessLog(clock),
            repeated=self.hot.repeated,
        )
        metrics.active_requests.set_function(lambda: self.answering)
        metrics.connections.set_function(lambda: len(self._channels))
        super().__init__(
            root, parsePOSTFormSubmission=False, timeout=self.limits.idle_timeout_s, reactor=clock
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

    def opening(self) -> bytes:
        """The first lines of an answer: all is well, who we are, and what time it is."""
        date = self.date()
        if date is not self._opening[0]:
            lines = b"HTTP/1.1 200 OK\r\nServer: %b\r\nDate: %b\r\n" % (SERVER, date)
            self._opening = date, lines
        return self._opening[1]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `Factory`: None, which closes the connection, when there are too many."""
        limits, of_address = self.limits, self.limits.max_connections_per_address
        most = min(limits.max_connections, self.crowd.most or limits.max_connections)
        if len(self._channels) >= most:
            return self._refuse("server-max-connections")
        if of_address and self._peers.count(plain_address(addr)) >= of_address:
            return self._refuse("server-max-connections-per-address")
        return super().buildProtocol(addr)

    def _refuse(self, limit: str) -> None:
        self.metrics.connections_refused.inc()
        self.metrics.limit_reached(limit).inc()

    def opened(self, channel: NcpsChannel) -> None:
        """Count a connection in."""
        self._channels.add(channel)
        if not channel.is_proxied:  # else its requests are counted
            self._peers.opened(channel.client)
        if self.crowd.grew(len(self._channels)):
            self.metrics.limit_reached("server-max-connections").inc()

    def closed(self, channel: NcpsChannel) -> None:
        """Count a connection out."""
        self._channels.discard(channel)
        if not channel.is_proxied:
            self._peers.closed(channel.client)
        self.crowd.shrank(len(self._channels))
        if not self._channels and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def entered(self, client: str) -> None:
        """Count a request in that a trusted proxy has brought."""
        self._peers.opened(client)

    def is_crowded(self, client: str) -> bool:
        """Whether more is being answered for one client than it may ask at once."""
        most = self.limits.max_connections_per_address
        if not most or self._peers.count(client) <= most:
            return False
        self.metrics.limit_reached("server-max-connections-per-address").inc()
        return True

    async def drain(self, deadline: float) -> int:
        """Let running responses end, take no further request, then cut what is left.

        Returns how many connections were cut after `deadline` seconds. Idle ones close at once.
        """
        self.is_draining = True
        self.hot.close()
        for channel in list(self._channels):
            if channel.is_idle:
                channel.loseConnection()
        late = self.clock.callLater(deadline, self.cut)
        self._cut_count = 0
        if self._channels:
            self._emptied = Deferred()
            await self._emptied
        if late.active():
            late.cancel()
        self.ledger.settle()
        return self._cut_count

    def cut(self) -> None:
        """End every connection at once; `drain` returns how many those were."""
        self._cut_count = len(self._channels)
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def log(self, request: NcpsRequest) -> None:  # type: ignore[override]
        """See `HTTPFactory`: account for a request that has ended; once, whatever fails then."""
        if request.is_accounted:
            return
        request.is_accounted = True
        self.answering -= 1
        if request.channel.is_proxied:
            self._peers.closed(request.client)
        self.ledger.add(request.account())
