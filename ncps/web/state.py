"""The state that all connections of clients share: clock, limits, counts, answers that lie ready.

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
    :ivar is_proxied: whether it comes from a proxy that is believed.
    """

    client: str
    is_proxied: bool
    transport: Any

    @property
    def is_idle(self) -> bool:
        """Whether no byte of any request was received since the last response."""

    def end(self) -> None:
        """Take no further request: close at once if it is idle, else after the present answer."""

    def loseConnection(self) -> object:
        """Close the connection when everything written is sent."""


class CountedRequest(Protocol):
    """A request that has ended, as far as the site needs it.

    :ivar is_accounted: whether the site has counted it out.
    """

    client: str
    is_accounted: bool

    @property
    def body(self) -> object | None:
        """The body behind its head, if there is one."""

    @property
    def channel(self) -> ClientConnection:
        """The connection that the request came on."""

    def account(self) -> Access:
        """Return the record of the request for metrics and the log."""


def _everybody(_connection: object, _headers: Headers) -> Principal:
    return ANONYMOUS


class SiteState(Site):
    """Counts connections and requests, and holds what they share.

    :param root: answers every request; see `routes.Routes`.
    :param hot: narinfos whose answers lie ready; none by default.
    :param access_log: gets every request that has ended, well or not, once, in batches; by default
        `AccessLog`.
    :cvar tracer: begins the span of each request; the assembly puts another one here.
    :cvar linger_s: a refused body is still read for this long, so that the client sees why.
    :cvar reader: names the principal that may have a ready answer, by connection and headers; None
        for a client about which the ordinary road decides. By default, everybody may.
    :ivar hot_nars: NARs whose answers lie ready; the assembly puts another one here.
    :ivar crowd: makes the listening ports that are added to it wait.
    :ivar is_leaving: whether clients should go elsewhere, though all are served still.
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
        metrics.connections.set_function(lambda: len(self.channels))
        super().__init__(
            root, parsePOSTFormSubmission=False, timeout=self.limits.idle_timeout_s, reactor=clock
        )

    def take(self, limits: ServerSettings) -> None:
        """Apply other limits from now on; a request that runs keeps those it began with."""
        self.limits = limits
        self.proxies = TrustedProxies(limits.trusted_proxies)
        self.timeOut = limits.idle_timeout_s

    def end_outdated(self) -> None:
        """Close connections whose client was let in by former rules, after their present answer."""
        for channel in list(self.channels):
            if getattr(channel.transport, "is_outdated", False):
                channel.end()

    def read_by(self, reader: Callable[[Any, Headers], Principal | None] | None) -> None:
        """Ask this before an answer that lies ready is given; None: everybody may have it."""
        self.reader = reader or _everybody
        self.hot.are_private = self.hot_nars.are_private = reader is not None
        self.hot.forget()
        self.hot_nars.drop(None)

    def startFactory(self) -> None:
        """See `Factory`: Twisted's own method would open an access log and tick every second."""

    def stopFactory(self) -> None:
        """See `Factory`."""

    def date(self) -> bytes:
        """The time for Date headers, written anew once a second."""
        now = int(time())
        if now != self._date[0]:
            self._date = now, datetimeToString(now)
        return self._date[1]

    def opening(self) -> bytes:
        """The first lines of an answer: status 200, the name of the server, and the time."""
        date = self.date()
        if date is not self._opening[0]:
            lines = b"HTTP/1.1 200 OK\r\nServer: %b\r\nDate: %b\r\n" % (SERVER, date)
            self._opening = date, lines
        return self._opening[1]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `Factory`: None, which closes the connection, when there are too many."""
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
        """Count a connection in."""
        self.channels.add(channel)
        if not channel.is_proxied:  # else its requests are counted
            self._peers.opened(channel.client)
        self.tell_count(len(self.channels))
        if self.crowd.grew(len(self.channels)):
            self.metrics.limit_reached("server-max-connections").inc()

    def closed(self, channel: ClientConnection) -> None:
        """Count a connection out."""
        self.channels.discard(channel)
        if not channel.is_proxied:
            self._peers.closed(channel.client)
        self.tell_count(len(self.channels))
        self.crowd.shrank(len(self.channels))

    def entered(self, client: str) -> None:
        """Count a request in that a trusted proxy has brought."""
        self._peers.opened(client)

    def may_enter(self, client: str) -> bool:
        """Whether a trusted proxy may bring one more request of a client."""
        most = self.limits.max_connections_per_address
        return not most or self._peers.count(client) < most

    def is_crowded(self, client: str) -> bool:
        """Whether one client has more requests under way than it may have at once."""
        most = self.limits.max_connections_per_address
        if not most or self._peers.count(client) <= most:
            return False
        self.metrics.limit_reached("server-max-connections-per-address").inc()
        return True

    def _repeated(self, accesses: Sequence[Access]) -> None:
        """Pass on the requests that were answered without a request object and a span."""
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
        """See `HTTPFactory`: account for a request that has ended; once, also if that fails."""
        if request.is_accounted:
            return
        request.is_accounted = True
        self.answering -= 1
        if request.body is not None:
            self.receiving -= 1
        if request.channel.is_proxied:
            self._peers.closed(request.client)
        self.ledger.add(request.account())
