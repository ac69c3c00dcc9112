"""Requester: sends one request over HTTP and hands on its answer, whatever that is.

treq does the work, but it always asks for gzip and undoes it out of our sight. So the agent below
takes the encoding out of its hands. Redirects, deadlines and errors are for `agent`.
"""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import treq
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from ncps.upstream.connection import pool
from ncps.upstream.proxies import Proxy
from ncps.upstream.reach import Endpoints

ASKED: Final = b"x-ncps-accept-encoding"
"""The header of a request that becomes Accept-Encoding."""
ENCODING: Final = b"x-ncps-wire-encoding"
"""The header of an answer that was Content-Encoding."""


@implementer(IAgent)
class WireAgent:
    """Sends the Accept-Encoding it is told to, and hides Content-Encoding from treq."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Pass the request on; see IAgent."""
        assert headers is not None
        wanted = headers.getRawHeaders(ASKED, [b"identity"])
        headers = headers.copy()
        headers.removeHeader(ASKED)
        headers.setRawHeaders(b"accept-encoding", wanted)
        answer: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(_hide_encoding)


@implementer(IAgent)
class ProxiedAgent:
    """Asks proxies for http URLs where they are to be asked; https goes through tunnels.

    :param agent: for all else.
    :param endpoints: knows where proxies are to be asked.
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


def _hide_encoding(response: IResponse) -> IResponse:
    headers: Headers = response.headers
    encoding = headers.getRawHeaders(b"content-encoding", [])
    headers.removeHeader(b"content-encoding")
    headers.setRawHeaders(ENCODING, encoding)
    return response


class _LiteralURL(EncodedURL):
    """A URL whose host is an IPv6 address: hyperlink takes every host for a name, and refuses it.

    Raises UnicodeError in the end, a ValueError, if something else of it is not ASCII.
    """

    def to_uri(self) -> _LiteralURL:
        """Nothing is left to encode."""
        return self


class Requester:
    """Sends requests, over connections that are kept for the next ones.

    :param endpoints: how to connect.
    :param kept: idle connections to each origin, at most.
    :param head_size: bytes of an answer's head, at most.
    """

    def __init__(
        self, reactor: Any, endpoints: IAgentEndpointFactory, kept: int, head_size: int
    ) -> None:
        self._pool = pool(reactor, kept, head_size)
        agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool=self._pool)
        if isinstance(endpoints, Endpoints):
            agent = ProxiedAgent(reactor, agent, endpoints, self._pool)
        # No cookies: caches need none, and a jar is memory that an upstream can fill.
        jar = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        self._treq = HTTPClient(WireAgent(agent), cookiejar=jar)

    def request(self, method: str, url: str, headers: Headers) -> Deferred[treq.response._Response]:
        """Send a request; the result is the head of its answer, redirect or not."""
        where = _LiteralURL.from_text(url) if "://[" in url else url
        sending: Deferred[treq.response._Response] = self._treq.request(
            method, where, headers=headers, unbuffered=True, allow_redirects=False
        )
        return sending

    def close(self) -> Deferred[object]:
        """Close the idle connections; the result comes when that is done."""
        closing: Deferred[object] = self._pool.closeCachedConnections()
        return closing
