"""Where an upstream may lead: to internal addresses only if it is at one itself.

A URL in a narinfo and a redirect are words of an upstream that nobody signs. If ncps followed them
anywhere, an upstream on the internet could have it ask what only this machine reaches: services of
this machine and of its network, and what a cloud tells its machines. So each address is looked at
after its name was resolved, when a connection to it is made; a name that leads elsewhere the next
time gains nothing. Requests to the upstream's own origin go wherever the operator's URL leads.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ncps.errors import Unavailable
from ncps.tls import VerifiedHTTPS

SETTING: Final = "cache-upstream-allow-internal-addresses"

_GLOBAL_V6: Final = IPv6Network("2000::/3")
_EMBEDDING: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""Addresses that end in an IPv4 address: mapped ones, and those that a NAT64 translates."""
_ODD: Final = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
"""For protocols and relays, not all of which every release of Python knows."""
_DOCUMENTS_V6: Final = IPv6Network("3fff::/20")


class InternalAddress(Exception):
    """A connection was not made, because it would lead to an internal address.

    :ivar address: in figures.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


def is_internal(text: str) -> bool:
    """Whether an address in figures is not one of the public internet.

    Loopback, link-local, private, shared (100.64.0.0/10), unspecified, multicast and reserved
    addresses are not, nor are IPv6 addresses that lead to such an IPv4 address, nor what is none.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return True
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is None:
            is_of_documents = address in _DOCUMENTS_V6
            return address not in _GLOBAL_V6 or is_of_documents or not address.is_global
        address = inner
    is_odd = address.is_multicast or address.is_reserved or any(address in net for net in _ODD)
    return is_odd or not address.is_global


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address at which an IPv6 address ends."""
    if any(address in network for network in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


@implementer(IReactorPluggableNameResolver)
class PublicOnly:
    """What endpoints need of a reactor; connects to no internal address.

    Names are resolved before: `HostnameEndpoint` asks for connections to addresses in figures, one
    after the other, and goes on with the next where one fails.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    @property
    def nameResolver(self) -> IHostnameResolver:
        """See `IReactorPluggableNameResolver`."""
        resolver: IHostnameResolver = self._reactor.nameResolver
        return resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See `IReactorPluggableNameResolver`."""
        replaced: IHostnameResolver = self._reactor.installNameResolver(resolver)
        return replaced

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """See `IReactorTCP`. Raises InternalAddress if the address is internal, or is none."""
        if is_internal(host):
            raise InternalAddress(host)
        return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)


class Home:
    """Knows whether an upstream is at an internal address itself.

    It is where its own connections were made to. Once one of them led to a public address it is
    not, until the program starts anew: else an upstream could have its own name lead inside for a
    moment, and everything else with it. Before the first connection its name is resolved.

    :param host: of the upstream's URL.
    :param timeout_s: for resolving it.
    """

    def __init__(self, reactor: Any, host: str, timeout_s: float) -> None:
        self._reactor = reactor
        self._host = host
        self._timeout_s = timeout_s
        self._is_internal: bool | None = None

    def saw(self, address: str) -> None:
        """Note the address, in figures, of a connection to the upstream's own origin."""
        self._is_internal = is_internal(address) and self._is_internal is not False

    async def is_internal(self) -> bool:
        """Say whether the upstream is inside. Raises Unavailable if resolving takes too long."""
        if self._is_internal is not None:
            return self._is_internal
        addresses = await self._resolved()
        return bool(addresses) and all(map(is_internal, addresses))

    async def _resolved(self) -> list[str]:
        receiver = _Addresses()
        self._reactor.nameResolver.resolveHostName(receiver, self._host)
        try:
            return await receiver.done.addTimeout(self._timeout_s, self._reactor)
        except DeferredTimeout:
            text = f"{self._host} was not resolved within {self._timeout_s:g} s"
            raise Unavailable(text, timed_out=True) from None


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of a name, in figures."""

    def __init__(self) -> None:
        self.done: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """See `IResolutionReceiver`."""

    def addressResolved(self, address: Any) -> None:
        """See `IResolutionReceiver`."""
        self._found.append(address.host)

    def resolutionComplete(self) -> None:
        """See `IResolutionReceiver`."""
        if not self.done.called:
            self.done.callback(self._found)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Connects where URLs say; connections to one origin are told.

    :param reactor: for connections to that origin.
    :param elsewhere: for all others, a reactor, too.
    :param origin: URL of that origin.
    :param timeout_s: for each attempt to connect.
    :param saw: told of the address, in figures, of each connection to that origin.
    """

    def __init__(
        self,
        reactor: Any,
        elsewhere: Any,
        origin: str,
        timeout_s: float,
        saw: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._elsewhere = elsewhere
        self._origin = _netloc(URI.fromBytes(origin.encode("ascii")))
        self._timeout_s = timeout_s
        self._saw = saw
        self._https = VerifiedHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`. Raises ValueError if the URI names no host."""
        if uri.scheme not in {b"http", b"https"}:
            raise SchemeNotSupported(f"not HTTP: {uri.scheme[:20]!r}")
        is_own = _netloc(uri) == self._origin
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor if is_own else self._elsewhere,
            uri.host.decode("ascii"),
            uri.port,
            timeout=self._timeout_s,
        )
        if is_own:
            endpoint = _Told(endpoint, self._saw)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._https.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint


def _netloc(uri: URI) -> tuple[bytes, bytes, int]:
    return uri.scheme, uri.host.lower(), uri.port


@implementer(IStreamClientEndpoint)
class _Told:
    """Tells where its connections lead."""

    def __init__(self, endpoint: IStreamClientEndpoint, saw: Callable[[str], object]) -> None:
        self._endpoint = endpoint
        self._saw = saw

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._tell)

    def _tell(self, protocol: Any) -> Any:
        transport = protocol.transport
        if transport is not None:  # else it is gone already
            self._saw(transport.getPeer().host)
        return protocol
