"""The HTTP client of one upstream: connections, deadlines, credentials and redirects.

Redirects are followed here: those of treq leak connections and resolve relative locations against
the wrong URL (twisted issue 6752 and others).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import treq
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed
from twisted.web.error import Error as WebError
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory

from ncps import __version__
from ncps.aio.bulkhead import Bulkhead
from ncps.aio.resolver import NameTrouble, Resolver
from ncps.aio.streams import BodyReader
from ncps.aio.tls import WrongCertificate
from ncps.errors import Busy, Corrupt, Unavailable
from ncps.peering import trail
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.connection import HeadTooLarge
from ncps.upstream.proxies import NO_PROXIES, Proxies
from ncps.upstream.reach import SETTING, Endpoints, Home, InternalAddress, Named, PublicOnly
from ncps.upstream.requester import ASKED, ENCODING, Requester
from ncps.upstream.tunnel import ProxyTrouble

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CUTS = (ConnectionClosed, RequestTransmissionFailed, ResponseFailed)


@frozen(kw_only=True)
class Timeouts:
    """Deadlines towards one upstream, in seconds.

    :param connect_s: until the connection stands (TLS included).
    :param first_byte_s: from then until the head of the answer has arrived.
    :param nar_s: the same for a NAR, which some upstreams have to fetch or put together first.
    :param idle_s: between two pieces of a body.
    """

    connect_s: float = 3.0
    first_byte_s: float = 3.0
    nar_s: float = 50.0
    idle_s: float = 20.0


@frozen(kw_only=True)
class Credentials:
    """What an upstream wants to see, sent to its own origin only."""

    user: str
    password: str = ""

    def header(self) -> bytes:
        """The value of the Authorization header (RFC 7617)."""
        return b"Basic " + b64encode(f"{self.user}:{self.password}".encode())

    def __repr__(self) -> str:
        return "Credentials(...)"


class _Cut(Unavailable):
    """The connection ended before the head of the answer."""


@frozen(kw_only=True)
class Answer:
    """The head of an answer, and its body to be read to the end or closed.

    :param url: where the answer came from in the end.
    :param encoding: its Content-Encoding in lower case, empty for none.
    :param content_length: bytes of the body on the wire, or what they would be for HEAD; None if
        unknown.
    """

    url: str
    status: int
    headers: Headers
    encoding: str
    content_length: int | None
    body: BodyReader

    def header(self, name: str) -> str:
        """The last value of a header, empty if absent."""
        values = self.headers.getRawHeaders(name.encode("ascii"), [])
        return values[-1].decode("latin-1").strip() if values else ""

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds from now (RFC 9110 section 10.2.3), if it makes sense."""
        text = self.header("retry-after")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time())
        except (ValueError, TypeError, OverflowError):
            return None


_USUAL = UpstreamsSettings()


class Client:
    """Requests to one upstream.

    :param reactor: for connections and deadlines.
    :param bounds: what one upstream may cost, and how much of it is used.
    :param reached: told of each request turned away for a bound, by the name of its setting.
    :param via: our name in the Via header (RFC 9110 section 7.6.3), by which we know ourselves.
    :param may_lead_inside: whether an upstream that is at a public address may have us ask at
        internal ones; see `reach`.
    :param endpoints: how to connect, if not as URLs say.
    :param resolver: looks host names up; None for the reactor's.
    :param proxies: what is asked through which proxy.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        base_url: str,
        timeouts: Timeouts,
        credentials: Credentials | None = None,
        bounds: UpstreamsSettings = _USUAL,
        reached: Callable[[str], object] = lambda _: None,
        via: str = "ncps",
        may_lead_inside: bool = False,
        endpoints: IAgentEndpointFactory | None = None,
        resolver: Resolver | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._via = via
        self._clock = cast("IReactorTime", reactor)
        self._timeouts = timeouts
        self._credentials = credentials
        self._origin = _origin(base_url)
        self._proxies = proxies
        named = Named(reactor, resolver)
        self._home = Home(named, self._origin[1] or "", timeouts.connect_s, self._is_proxied)
        self._may_lead_inside = may_lead_inside or endpoints is not None
        free = endpoints or self._endpoints(named, base_url, named)
        confined = endpoints or self._endpoints(named, base_url, PublicOnly(reactor, resolver))
        # What was connected while everything was allowed is no way in when it is not any more.
        kept = bounds.max_connections + bounds.max_queries
        self._free = Requester(reactor, free, kept, bounds.max_header_size_bytes)
        self._confined = Requester(reactor, confined, kept, bounds.max_header_size_bytes)
        self.bounds = bounds
        self.reached = reached
        self.transfers = self._slots("a NAR transfer", bounds.max_connections)
        self.queries = self._slots("a query", bounds.max_queries)

    @property
    def _is_proxied(self) -> bool:
        """Whether the upstream's own origin is asked through a proxy."""
        scheme, host, port = self._origin
        return self._proxies.choose(scheme, host or "", port or 0) is not None

    def _endpoints(self, reactor: Named, base_url: str, elsewhere: Named) -> Endpoints:
        connect_s = self._timeouts.connect_s
        return Endpoints(reactor, elsewhere, base_url, connect_s, self._home.saw, self._proxies)

    def _slots(self, what: str, size: int) -> Bulkhead:
        names = {"queue": "cache-upstream-max-queue", "patience": "cache-upstream-queue-timeout"}
        return Bulkhead(
            self._clock,
            f"{what} at {self._origin[1]}",
            size=size,
            queue=self.bounds.max_queue,
            patience_s=self.bounds.queue_timeout_s,
            reached=lambda why: self.reached(names[why]),
        )

    @staticmethod
    def host_of(url: str) -> str:
        """Host name in a URL, without port."""
        return urlsplit(url).hostname or ""

    async def close(self) -> None:
        """Close the idle connections."""
        await self._free.close()
        await self._confined.close()

    def discard(self) -> None:
        """Close the idle connections, whenever that is done."""
        self._free.close()
        self._confined.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        accept_encoding: str = "identity",
        follows: bool = True,
        is_nar: bool = False,
    ) -> Answer:
        """Send a request, follow redirects, return the answer when its head has arrived.

        The caller reads the body to its end or closes it. Unavailable, Corrupt.

        :param follows: whether redirects are followed; else they are answers as any.
        :param is_nar: whether the answer may take as long as that of a NAR may.
        """
        times = self._timeouts
        wait_s = times.connect_s + (times.nar_s if is_nar else times.first_byte_s)
        for hop in range(self.bounds.max_redirects + 1):
            try:
                answer = await self._answered(method, url, headers or {}, accept_encoding, wait_s)
            except InternalAddress as error:
                told = (
                    f"{self.host_of(url)} leads to {error.address}, an internal address, and the"
                    f" upstream is not at one; {SETTING} would allow it"
                )
                if hop:
                    raise Unavailable(f"a redirect to {told}", kind="status") from None
                raise Corrupt(told) from None
            if answer.status not in _REDIRECTS or not follows:
                return answer
            location = answer.header("location")
            answer.body.close()
            url = _redirected(url, location)
        self.reached("cache-upstream-max-redirects")
        raise Unavailable(f"more than {self.bounds.max_redirects} redirects", kind="status")

    async def _answered(
        self, method: str, url: str, headers: dict[str, str], accept_encoding: str, wait_s: float
    ) -> Answer:
        try:
            return await self._once(method, url, headers, accept_encoding, wait_s)
        except _Cut:  # before any byte of the answer: once more, as for a stale connection
            return await self._once(method, url, headers, accept_encoding, wait_s)

    async def _once(
        self, method: str, url: str, extra: dict[str, str], accept_encoding: str, wait_s: float
    ) -> Answer:
        via = trail.via(self._via)
        headers = {"user-agent": f"ncps/{__version__}", "via": via, **extra}
        sent = Headers({name.encode(): [value.encode()] for name, value in headers.items()})
        sent.setRawHeaders(ASKED, [accept_encoding.encode()])
        try:
            is_own = _origin(url) == self._origin
            if self._credentials is not None and is_own:
                sent.setRawHeaders(b"authorization", [self._credentials.header()])
            is_free = not is_own and (self._may_lead_inside or await self._home.is_internal())
            response = await self._sent(
                self._free if is_free else self._confined, method, url, sent, wait_s
            )
        except _CUTS as error:
            wrong = _reasons(error)[0]
            if isinstance(wrong, WrongCertificate):
                raise Unavailable(str(wrong)) from error
            if isinstance(wrong, HeadTooLarge):
                self.reached("cache-upstream-max-header-size")
                raise Unavailable(str(wrong), kind="malformed") from error
            raise _Cut(_reason(error), timed_out=_is_timeout(error)) from error
        except ProxyTrouble as error:
            raise Unavailable(str(error), timed_out=error.timed_out, kind=error.kind) from error
        except NameTrouble as error:
            raise _unnamed(error) from error
        except (ConnectError, DNSLookupError, OSError) as error:
            raise Unavailable(_reason(error), timed_out=_is_timeout(error)) from error
        except (ValueError, WebError, SchemeNotSupported) as error:
            raise Corrupt(f"not HTTP: {type(error).__name__}", kind="malformed") from error
        return self._answer(method, url, response)

    async def _sent(
        self, requester: Requester, method: str, url: str, headers: Headers, wait_s: float
    ) -> treq.response._Response:
        """Send one request and wait for the head of its answer, for `wait_s` seconds at most.

        A request that is called off fails in many ways, few of which `addTimeout` knows, and
        most of which look like a connection that broke.
        """
        called_off: list[Exception] = []

        def call_off(_: object) -> None:
            called_off.append(CancelledError())
            request.cancel()

        def expire() -> None:
            called_off.append(Unavailable(f"no answer within {wait_s:g} s", timed_out=True))
            head.cancel()

        def settle(result: treq.response._Response | Failure) -> None:
            if not head.called:
                head.callback(result)

        head: Deferred[treq.response._Response] = Deferred(call_off)
        request = requester.request(method, url, headers)
        request.addBoth(settle)
        timer = self._clock.callLater(wait_s, expire)
        try:
            return await head
        except Exception:
            if called_off:
                raise called_off[0] from None
            raise
        finally:
            if timer.active():
                timer.cancel()

    def _answer(self, method: str, url: str, response: treq.response._Response) -> Answer:
        body = BodyReader(clock=self._clock, idle_after=self._timeouts.idle_s)
        encoding = response.headers.getRawHeaders(ENCODING, [])
        response.deliverBody(body)
        return Answer(
            url=url,
            status=response.code,
            headers=response.headers,
            encoding=", ".join(e.decode("latin-1").strip().lower() for e in encoding).replace(
                "identity", ""
            ),
            content_length=_length(method, response),
            body=body,
        )


def _length(method: str, response: treq.response._Response) -> int | None:
    """Content-Length, which Twisted keeps among the headers for HEAD and takes out otherwise."""
    if method != "HEAD":
        return None if response.length is UNKNOWN_LENGTH else int(response.length)
    text: bytes = response.headers.getRawHeaders(b"content-length", [b""])[-1].strip()
    return int(text) if text.isdigit() and len(text) < 20 else None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _redirected(url: str, location: str) -> str:
    if not location:
        raise Unavailable("a redirect without a Location", kind="status")
    try:
        target = urljoin(url, location)
        scheme, *_ = _origin(target)
    except ValueError:
        raise Unavailable("a redirect to what is no URL", kind="status") from None
    if scheme not in {"http", "https"} or (scheme == "http" and url.startswith("https:")):
        raise Unavailable(f"a redirect to {scheme or 'nowhere'} is not followed", kind="status")
    return target


def _unnamed(error: NameTrouble) -> Unavailable:
    """What it means for us that a name could not be looked up."""
    return Busy(str(error)) if error.is_ours else Unavailable(str(error), timed_out=error.timed_out)


def _reasons(error: Exception) -> list[Exception]:
    """What a failure wraps, or the failure itself."""
    return [reason.value for reason in getattr(error, "reasons", None) or []] or [error]


def _reason(error: Exception) -> str:
    inner = _reasons(error)[0]
    return f"{type(inner).__name__}: {inner}"[:200]


def _is_timeout(error: Exception) -> bool:
    return any("Timeout" in type(reason).__name__ for reason in (error, *_reasons(error)))
