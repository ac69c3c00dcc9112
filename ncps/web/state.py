"""The state that all connections of clients share: clock, limits, counts, ready answers.

Connections and requests import this module; `site` has the factory that makes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Site

from ncps.auth.principal import ANONYMOUS, Principal
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.settings.schema.server import ServerSettings
from ncps.web.accesslog import AccessLog
from ncps.web.address_counts import AddressCounts
from ncps.web.clients import TrustedProxies, plain_address
from ncps.web.crowd import Crowd
from ncps.web.fast.heads import KnownHeads
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.hot_nars import ROUTE, HotNars
from ncps.web.fast.ledger import Access, Ledger
from ncps.web.misled import Misled

SERVER = b"ncps"


class ClientConnection(Protocol):
    """A connection of a client, as far as the site needs it.

    :ivar client: address that the connection comes from; see `clients`.
    :ivar is_proxied: whether it comes from a trusted proxy.
    """

    client: str
    is_proxied: bool
    transport: Any

    @property
    def is_idle(self) -> bool:
        """Whether no byte of any request was received since the last response."""

    def end(self) -> None:
        """Accept no further request: close now if idle, else after the present answer."""

    def loseConnection(self) -> object:
        """Close the connection once all written bytes are sent."""


class CountedRequest(Protocol):
    """A request that has ended, as far as the site needs it.

    :ivar is_accounted: whether the site has logged and counted it.
    """

    client: str
    is_accounted: bool

    @property
    def body(self) -> object | None:
        """The body of the request, if it has one."""

    @property
    def channel(self) -> ClientConnection:
        """The connection of the request."""

    def account(self) -> Access:
        """Return the record of the request for metrics and the log."""


def _everybody(_connection: object, _headers: Headers) -> Principal:
    return ANONYMOUS


class SiteState(Site):
    """The counts and limits of connections and requests, and the objects that they share.

    :param root: answers every request; see `routes.Routes`.
    :param hot: narinfos whose answers are ready; none by default.
    :param access_log: called once, in batches, with every request that has ended, also after an
        error; by default `AccessLog`.
    :cvar tracer: begins the span of each request; the assembly replaces it.
    :cvar linger_s: seconds for which a refused body is read, so that the client sees the answer.
    :cvar reader: returns the principal that may get a ready answer, by connection and headers; None
        if the usual way has to decide. By default, all clients may get it.
    :ivar hot_nars: NARs whose answers are ready; the assembly replaces it.
    :ivar crowd: the listening ports.
    :ivar is_leaving: whether load balancers should turn elsewhere, while clients are still served.
    """

    noisy = False
    tracer: Tracer = NO_TRACER
    reader: Callable[[Any, Headers], Principal | None] = staticmethod(_everybody)
    linger_s = 2.0

    def __init__(
        self,
        root: IResource,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        limits: ServerSettings | None = None,
        hot: HotNarInfos | None = None,
        access_log: Callable[[Sequence[Access]], object] | None = None,
    ) -> None:
        self.clock = clock
        self.metrics = metrics
        self.limits = limits or ServerSettings()
        self.proxies = TrustedProxies(self.limits.trusted_proxies)
        self.is_leaving = False
        self.is_draining = False
        self.answering = 0
        self.receiving = 0
        self.channels: set[ClientConnection] = set()
        self._peers = AddressCounts()
        self.crowd = Crowd()
        self.tell_count: Callable[[int], object] = int
        self._date = (0, b"")
        self._opening = (b"", b"")
        self.heads = KnownHeads()
        self.misled = Misled(clock)
        self.hot = HotNarInfos(0) if hot is None else hot
        self.hot_nars = HotNars(0)
        self.ledger = Ledger(
            clock=clock,
            metrics=metrics,
            access_log=access_log or AccessLog(clock),
            repeated=self._repeated,
        )
        metrics.active_requests.set_function(lambda: self.answering)
        for gauge in (metrics.connections, metrics.most_connections):
            gauge.set_function(lambda: len(self.channels))
        super().__init__(
            root, parsePOSTFormSubmission=False, timeout=self.limits.idle_timeout_s, reactor=clock
        )

    def take(self, limits: ServerSettings) -> None:
        """Apply other limits from now on; a running request keeps its limits."""
        self.limits = limits
        self.proxies = TrustedProxies(limits.trusted_proxies)
        self.timeOut = limits.idle_timeout_s

    def end_outdated(self) -> None:
        """Close connections that former authorities accepted, after their present answer."""
        for channel in list(self.channels):
            if getattr(channel.transport, "is_outdated", False):
                channel.end()

    def read_by(self, reader: Callable[[Any, Headers], Principal | None] | None) -> None:
        """Ask `reader` before a ready answer is sent; with None, all clients may get it."""
        self.reader = reader or _everybody
        self.hot.are_private = self.hot_nars.are_private = reader is not None
        self.hot.forget()
        self.hot_nars.drop(None)

    def startFactory(self) -> None:
        """Do nothing; Twisted's method would open an access log and run a timer every second."""

    def stopFactory(self) -> None:
        """Do nothing; see `startFactory`."""

    def date(self) -> bytes:
        """Return the time for Date headers, written once a second."""
        now = int(time())
        if now != self._date[0]:
            self._date = now, datetimeToString(now)
        return self._date[1]

    def opening(self) -> bytes:
        """Return the first lines of an answer: status 200, the name of the server, and the time."""
        date = self.date()
        if date is not self._opening[0]:
            lines = b"HTTP/1.1 200 OK\r\nServer: %b\r\nDate: %b\r\n" % (SERVER, date)
            self._opening = date, lines
        return self._opening[1]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `Factory`; None, which closes the connection, if there are too many."""
        limits, of_address = self.limits, self.limits.max_connections_per_address
        most = min(limits.max_connections, self.crowd.most or limits.max_connections)
        if len(self.channels) >= most:
            return self._refuse("server-max-connections")
        if of_address and self._peers.count(plain_address(addr)) >= of_address:
            return self._refuse("server-max-connections-per-address")
        return super().buildProtocol(addr)

    def _refuse(self, limit: str) -> None:
        self.metrics.connections_refused.inc()
        self.metrics.limit_reached(limit).inc()

    def opened(self, channel: ClientConnection) -> None:
        """Add a connection."""
        self.channels.add(channel)
        if not channel.is_proxied:  # else its requests are counted
            self._peers.opened(channel.client)
        self.tell_count(len(self.channels))
        if self.crowd.grew(len(self.channels)):
            self.metrics.limit_reached("server-max-connections").inc()

    def closed(self, channel: ClientConnection) -> None:
        """Remove a connection."""
        self.channels.discard(channel)
        if not channel.is_proxied:
            self._peers.closed(channel.client)
        self.tell_count(len(self.channels))
        self.crowd.shrank(len(self.channels))

    def entered(self, client: str) -> None:
        """Count a request from a trusted proxy for its client."""
        self._peers.opened(client)

    def may_enter(self, client: str) -> bool:
        """Whether a trusted proxy may send one more request of a client."""
        most = self.limits.max_connections_per_address
        return not most or self._peers.count(client) < most

    def is_crowded(self, client: str) -> bool:
        """Whether one client has more running requests than it may have."""
        most = self.limits.max_connections_per_address
        if not most or self._peers.count(client) <= most:
            return False
        self.metrics.limit_reached("server-max-connections-per-address").inc()
        return True

    def _repeated(self, accesses: Sequence[Access]) -> None:
        """Count the requests that were answered without a request object, and pass them on."""
        if self.tracer.is_on:
            self.metrics.process.untraced.inc(len(accesses))
        nars = [access for access in accesses if access.route == ROUTE]
        narinfos = [access for access in accesses if access.route != ROUTE]
        if nars:
            self.metrics.short_answers(ROUTE).inc(len(nars))
            self.hot_nars.repeated(nars)
        if narinfos:
            self.metrics.short_answers("/{hash}.narinfo").inc(len(narinfos))
            self.hot.repeated(narinfos)

    def log(self, request: CountedRequest) -> None:  # type: ignore[override]
        """See `HTTPFactory`: log and count a request that has ended, only once."""
        if request.is_accounted:
            return
        request.is_accounted = True
        self.answering -= 1
        if request.body is not None:
            self.receiving -= 1
        if request.channel.is_proxied:
            self._peers.closed(request.client)
        self.ledger.add(request.account())
