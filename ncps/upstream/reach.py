"""Reach: an upstream may lead to internal addresses only if it has one itself.

Nobody signs a redirect or the URL in a narinfo. If ncps followed them to any address, an upstream
on the internet could send requests through ncps to services that only this machine reaches: on this
machine, in its network, or a cloud's services for its machines. So ncps checks each address after
it has resolved the name, when it makes the connection. It does not help an attacker to change the
name in between. Requests to the upstream's own origin go to any address to which the operator's URL
leads.

Behind a proxy we do not see the address, because the proxy looks the name up. So an upstream behind
a proxy counts as public, unless its URL has an internal IP address. URLs and redirects with
internal IP addresses are refused as without a proxy. The rules of the proxy decide to which other
names it connects. Requests that do not use the proxy are treated as without one.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
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

from ncps.aio.resolver import NamedEndpoint, NameTrouble, Resolver
from ncps.aio.tls import VerifiedHTTPS
from ncps.aio.waiting import within
from ncps.upstream.proxies import NO_PROXIES, Proxies, Proxy, address_of
from ncps.upstream.tunnel import ProxyEndpoint, Tunnel

SETTING: Final = "cache-upstream-allow-internal-addresses"

_GLOBAL_V6: Final = IPv6Network("2000::/3")
_EMBEDDING: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv6 addresses that end in an IPv4 address: mapped ones, and those that a NAT64 translates."""
_ODD: Final = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
"""Networks for protocols and relays; some releases of Python do not know all of them."""
_DOCUMENTS_V6: Final = IPv6Network("3fff::/20")


class InternalAddress(Exception):
    """A connection was not made, because it would lead to an internal address.

    :ivar address: the IP address.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


def is_internal(text: str) -> bool:
    """Return whether an IP address is internal; True also if the text is no IP address.

    Internal addresses are the loopback, link-local, private, shared (100.64.0.0/10), unspecified,
    multicast and reserved ones, and IPv6 addresses that embed one of these.
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
    """Return the IPv4 address in which an IPv6 address ends; None if it ends in none."""
    if any(address in network for network in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


def names_internal(host: str) -> bool:
    """Return whether the host in a URL is an internal IP address, in any spelling."""
    address = address_of(host)
    return address is not None and is_internal(str(address))


@implementer(IReactorPluggableNameResolver)
class Named:
    """The part of a reactor that endpoints need, with another resolver.

    :param resolver: the resolver; None for the reactor's.
    """

    def __init__(self, reactor: Any, resolver: IHostnameResolver | None) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    @property
    def nameResolver(self) -> IHostnameResolver:
        """See `IReactorPluggableNameResolver`."""
        resolver: IHostnameResolver = self._resolver or self._reactor.nameResolver
        return resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See `IReactorPluggableNameResolver`."""
        replaced, self._resolver = self.nameResolver, resolver
        return replaced

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """See `IReactorTCP`."""
        return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)


class PublicOnly(Named):
    """Connects to no internal address.

    The names are resolved already: `HostnameEndpoint` asks for connections to IP addresses, one
    after the other, and tries the next if one fails.
    """

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """See `IReactorTCP`. Raises InternalAddress if the address is internal or no IP address."""
        if is_internal(host):
            raise InternalAddress(host)
        return super().connectTCP(host, port, factory, timeout, bindAddress)


class Home:
    """Knows whether an upstream is internal itself.

    An upstream is internal while all connections to its own URL led to internal addresses. After
    one connection to a public address it counts as public until the program restarts. Otherwise it
    could make its own name lead to an internal address for a moment. Before the first connection,
    ncps resolves its name.

    :param host: the host in the upstream's URL.
    :param timeout_s: the deadline for resolving it.
    :param is_proxied: whether requests go through a proxy, which resolves the name.
    """

    def __init__(self, reactor: Any, host: str, timeout_s: float, is_proxied: bool) -> None:
        self._reactor = reactor
        self._host = host
        self._timeout_s = timeout_s
        self._is_internal: bool | None = names_internal(host) if is_proxied else None

    def saw(self, address: str) -> None:
        """Note the IP address of a connection to the upstream's own origin."""
        self._is_internal = is_internal(address) and self._is_internal is not False

    async def is_internal(self) -> bool:
        """Return whether the upstream is internal.

        Raises Unavailable if resolving takes too long, NameTrouble if it finds no address.
        """
        if self._is_internal is not None:
            return self._is_internal
        addresses = await self._resolved()
        return bool(addresses) and all(map(is_internal, addresses))

    async def _resolved(self) -> list[str]:
        receiver = _Addresses()
        self._reactor.nameResolver.resolveHostName(receiver, self._host)
        late = f"{self._host} was not resolved within {self._timeout_s:g} s"
        found = await within(self._reactor, self._timeout_s, receiver.done, late)
        resolver = self._reactor.nameResolver
        if not found and isinstance(resolver, Resolver):
            raise resolver.why(self._host) or NameTrouble(f"{self._host} was not found")
        return found


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the IP addresses of a name."""

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
    """Connects as URLs say; reports the addresses of connections to one origin.

    :param reactor: for connections to that origin.
    :param elsewhere: the reactor for all other connections.
    :param origin: URL of that origin.
    :param timeout_s: the deadline of each attempt to connect.
    :param saw: called with the IP address of each connection to that origin.
    :param proxies: choose the proxy for a URL.
    """

    def __init__(
        self,
        reactor: Any,
        elsewhere: Any,
        origin: str,
        timeout_s: float,
        saw: Callable[[str], object],
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._reactor = reactor
        self._elsewhere = elsewhere
        self._proxies = proxies
        self._origin = _netloc(URI.fromBytes(origin.encode("ascii")))
        self._timeout_s = timeout_s
        self._saw = saw
        self._https = VerifiedHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`. Raises ValueError if the URI names no host."""
        if uri.scheme not in {b"http", b"https"}:
            raise SchemeNotSupported(f"not HTTP: {uri.scheme[:20]!r}")
        proxy = self.proxy_for(uri)
        endpoint = self._direct(uri) if proxy is None else self._tunnel(uri, proxy)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._https.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint

    def proxy_for(self, uri: URI) -> Proxy | None:
        """Return the proxy for a URI; None if there is none.

        Raises InternalAddress if the URI has an internal IP address, and no request may go to it.
        """
        host = uri.host.decode("ascii")
        proxy = self._proxies.choose(uri.scheme.decode("ascii"), host, uri.port)
        is_confined = isinstance(self._elsewhere, PublicOnly) and _netloc(uri) != self._origin
        if proxy is not None and is_confined and names_internal(host):
            raise InternalAddress(host)
        return proxy

    def endpoint_of(self, proxy: Proxy) -> IStreamClientEndpoint:
        """Return the endpoint that connects to a proxy."""
        return ProxyEndpoint(self._reactor, proxy, self._timeout_s)

    def _direct(self, uri: URI) -> IStreamClientEndpoint:
        is_own = _netloc(uri) == self._origin
        reactor = self._reactor if is_own else self._elsewhere
        endpoint = NamedEndpoint(reactor, uri.host.decode("ascii"), uri.port, self._timeout_s)
        return _Reporting(endpoint, self._saw) if is_own else endpoint

    def _tunnel(self, uri: URI, proxy: Proxy) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        target = f"[{host}]:{uri.port}" if ":" in host else f"{host}:{uri.port}"
        return Tunnel(self._reactor, self.endpoint_of(proxy), proxy, target, self._timeout_s)


def _netloc(uri: URI) -> tuple[bytes, bytes, int]:
    return uri.scheme, uri.host.lower(), uri.port


@implementer(IStreamClientEndpoint)
class _Reporting:
    """Reports the addresses of its connections."""

    def __init__(self, endpoint: IStreamClientEndpoint, saw: Callable[[str], object]) -> None:
        self._endpoint = endpoint
        self._saw = saw

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._report)

    def _report(self, protocol: Any) -> Any:
        transport = protocol.transport
        if transport is not None:  # None: it is closed already
            self._saw(transport.getPeer().host)
        return protocol
