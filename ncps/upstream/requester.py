"""Requester: sends one request over HTTP and returns the head of its answer.

treq does the work, but it always asks for gzip and decodes it without telling us. So a small agent
for each request handles the encoding in its place. `agent` handles redirects, deadlines and errors.
"""

from __future__ import annotations

import re
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import treq
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.destination import Destination, origin_of
from ncps.upstream.plain import AnswerHead, TwistedHead
from ncps.upstream.pool import Pool
from ncps.upstream.proxies import Proxy
from ncps.upstream.reach import Endpoints, Home, Named, PublicOnly


@implementer(IAgent)
class WireAgent:
    """Sends one request with an Accept-Encoding of ours, and hides Content-Encoding from treq.

    :ivar encoding: the Content-Encoding of the answer.
    """

    def __init__(self, agent: IAgent, accept_encoding: str) -> None:
        self.encoding = ""
        self._agent = agent
        self._accept_encoding = accept_encoding

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Pass the request on; see IAgent."""
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"accept-encoding", [self._accept_encoding.encode()])
        answer: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(self._hide_encoding)

    def _hide_encoding(self, response: IResponse) -> IResponse:
        values = response.headers.getRawHeaders(b"content-encoding", [])
        response.headers.removeHeader(b"content-encoding")
        self.encoding = ", ".join(value.decode("latin-1").strip() for value in values)
        return response


@implementer(IAgent)
class ProxiedAgent:
    """Sends requests for http URLs to the proxies that are to be used; https uses tunnels.

    :param agent: sends all other requests.
    :param endpoints: choose the proxy for a URL.
    """

    def __init__(
        self, reactor: Any, agent: IAgent, endpoints: Endpoints, pool: HTTPConnectionPool
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self._endpoints = endpoints
        self._pool = pool
        self._agents: dict[Proxy, ProxyAgent] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Pass the request on; see IAgent. Raises InternalAddress: see `Endpoints.proxy_for`."""
        parsed = URI.fromBytes(uri)
        proxy = self._endpoints.proxy_for(parsed) if parsed.scheme == b"http" else None
        agent: Any = self._agent
        if proxy is not None:
            if proxy not in self._agents:
                endpoint = self._endpoints.endpoint_of(proxy)
                self._agents[proxy] = ProxyAgent(endpoint, self._reactor, self._pool)
            agent = self._agents[proxy]
            uri = uri.partition(b"#")[0]
            if proxy.authorization:
                headers = Headers() if headers is None else headers.copy()
                headers.setRawHeaders(b"proxy-authorization", [proxy.authorization])
        asked: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return asked


class _LiteralURL(EncodedURL):
    """A URL whose host is an IPv6 address: hyperlink takes each host for a name, and refuses it.

    Later encoding raises UnicodeError, a ValueError, if another part of the URL is not ASCII.
    """

    def to_uri(self) -> _LiteralURL:
        """Return the URL itself, because nothing is left to encode."""
        return self


_ORIGIN: Final = re.compile(r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(?:/.*)?")
_PATH: Final = re.compile(
    r"(?:/[A-Za-z0-9_~+=@!,*-][A-Za-z0-9._~+=@!,*-]*)+(?:\?[\w.~+=&-]+)?", re.ASCII
)
"""Paths and queries that parsing and writing do not change."""


class PlainWay:
    """Sends plain requests to one origin; see `plain`.

    :param origin: the beginning of its URLs: scheme, host and port.
    """

    def __init__(self, pool: Pool, endpoint: IStreamClientEndpoint, uri: URI, origin: str) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._key = uri.scheme, uri.host, uri.port
        self._origin = origin
        usual = {b"http": 80, b"https": 443}[uri.scheme]
        self._host = uri.host if uri.port == usual else b"%b:%d" % (uri.host, uri.port)

    def path_of(self, url: str) -> str:
        """Return the path in a URL of this origin; empty if treq must send the request."""
        if not url.startswith(self._origin):
            return ""
        path = url[len(self._origin) :]
        return path if _PATH.fullmatch(path) else ""

    def request(self, method: str, path: str, fields: bytes) -> Deferred[AnswerHead]:
        """Send a request; the result is the head of its answer, also of a redirect.

        :param fields: lines of the head without Host, each with its line end.
        """
        name = method.encode("ascii")
        text = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (
            name,
            path.encode("ascii"),
            self._host,
            fields,
        )
        return self._pool.ask(self._key, self._endpoint, name, text)


class Requester:
    """Sends requests, over connections that are kept for later ones.

    :param endpoints: makes the connections.
    :param kept: idle connections to each origin, at most.
    :param head_size: bytes of an answer's head, at most.
    """

    def __init__(
        self, reactor: Any, endpoints: IAgentEndpointFactory, kept: int, head_size: int
    ) -> None:
        self._pool = Pool(reactor, kept, head_size)
        self._endpoints = endpoints
        agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool=self._pool)
        if isinstance(endpoints, Endpoints):
            agent = ProxiedAgent(reactor, agent, endpoints, self._pool)
        self._agent = agent
        # No cookies: caches need none, and an upstream could fill the memory with them.
        self._jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))

    def request(
        self, method: str, url: str, headers: Headers, accept_encoding: str
    ) -> Deferred[AnswerHead]:
        """Send a request; the result is the head of its answer, also of a redirect."""
        where = _LiteralURL.from_text(url) if "://[" in url else url
        agent = WireAgent(self._agent, accept_encoding)
        sending: Deferred[treq.response._Response] = HTTPClient(agent, cookiejar=self._jar).request(
            method, where, headers=headers, unbuffered=True, allow_redirects=False
        )
        is_head = method == "HEAD"
        return sending.addCallback(
            lambda answer: TwistedHead(answer, is_head=is_head, encoding=agent.encoding)
        )

    def way(self, base_url: str) -> PlainWay | None:
        """Return a `PlainWay` to an origin; None if its URL is unusual or needs a proxy."""
        found = _ORIGIN.fullmatch(base_url)
        if found is None:
            return None
        uri = URI.fromBytes(base_url.encode("ascii"))
        endpoints = self._endpoints
        is_tunnel = uri.scheme == b"https" or not isinstance(endpoints, Endpoints)
        if not is_tunnel and endpoints.proxy_for(uri) is not None:  # type: ignore[attr-defined]
            return None  # requests to a proxy must have the whole URL
        return PlainWay(self._pool, endpoints.endpointForURI(uri), uri, found[1])

    def close(self) -> Deferred[object]:
        """Close the idle connections; the result comes when that is done."""
        closing: Deferred[object] = self._pool.closeCachedConnections()
        return closing


class Requesters:
    """The connections to one upstream, and to the servers that its URLs lead to.

    Free connections may lead to internal addresses, confined ones may not. A connection that was
    made while internal addresses were allowed must not be used after that ends. So URLs that may
    lead to them have connections of their own; see `reach`.

    :param endpoints: makes the connections; None connects as the URLs say.
    :ivar plain: sends plain requests to the upstream's own origin; None if that is not possible.
    """

    def __init__(
        self,
        reactor: Any,
        destination: Destination,
        bounds: UpstreamsSettings,
        endpoints: IAgentEndpointFactory | None,
    ) -> None:
        self._origin = destination.origin
        self._may_lead_inside = bounds.allow_internal_addresses or endpoints is not None
        connect_s, resolver = destination.timeouts.connect_s, destination.resolver
        named = Named(reactor, resolver)
        self._home = Home(named, self._origin[1], connect_s, destination.is_proxied)

        def requester(elsewhere: Named) -> Requester:
            ways = endpoints or Endpoints(
                named,
                elsewhere,
                destination.base_url,
                connect_s,
                self._home.saw,
                destination.proxies,
            )
            kept = bounds.max_connections + bounds.max_queries + 2 * bounds.max_prefetches
            return Requester(reactor, ways, kept, bounds.max_header_size_bytes)

        self._free = requester(named)
        self._confined = requester(PublicOnly(reactor, resolver))
        is_plain = bounds.plain_requests
        self.plain = self._confined.way(destination.base_url) if is_plain else None

    async def choose(self, url: str) -> Requester:
        """Return the requester for a URL.

        Raises ValueError if it is no URL, Unavailable or NameTrouble if ncps cannot find out
        whether the upstream is internal.
        """
        is_own = origin_of(url) == self._origin
        is_free = not is_own and (self._may_lead_inside or await self._home.is_internal())
        return self._free if is_free else self._confined

    def close(self) -> Deferred[Any]:
        """Close the idle connections; the result comes when that is done."""
        return gatherResults([self._free.close(), self._confined.close()])
