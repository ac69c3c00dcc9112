"""The HTTP client of one upstream: connections, deadlines, credentials and redirects.

This module follows redirects itself: treq leaks connections at redirects, and resolves relative
locations against the wrong URL (twisted issue 6752 and others).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import partial
from time import time
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

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
from twisted.web.iweb import IAgentEndpointFactory

from ncps import __version__
from ncps.aio.reasons import reason_of
from ncps.aio.resolver import NameTrouble
from ncps.aio.streams import BodyReader
from ncps.aio.tls import WrongCertificate
from ncps.errors import Busy, Corrupt, Unavailable
from ncps.observe.metrics import Metrics
from ncps.peering import trail
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.connection import HeadTooLarge
from ncps.upstream.destination import BasicCredentials, Destination, origin_of
from ncps.upstream.plain import AnswerHead
from ncps.upstream.reach import SETTING, InternalAddress
from ncps.upstream.requester import Requesters
from ncps.upstream.traced import trace_headers, traced
from ncps.upstream.tunnel import ProxyTrouble
from ncps.upstream.turns import Turns

AGENT: Final = f"ncps/{__version__}"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CUTS = (ConnectionClosed, RequestTransmissionFailed, ResponseFailed)


class _Cut(Unavailable):
    """The connection ended before the head of the answer."""


@frozen(kw_only=True)
class Answer:
    """The head of an answer, and its body. The caller reads the body to its end or closes it.

    :param url: the URL of the answer, after all redirects.
    :param values: returns all values of a header, by its name in lower case.
    :param encoding: its Content-Encoding in lower case; empty for none.
    :param content_length: Content-Length, also of an answer to HEAD; None if unknown.
    """

    url: str
    status: int
    values: Callable[[bytes], list[bytes]]
    encoding: str
    content_length: int | None
    body: BodyReader

    def header(self, name: str) -> str:
        """Return the last value of a header; empty if it is absent."""
        values = self.values(name.encode("ascii"))
        return values[-1].decode("latin-1").strip() if values else ""

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds from now (RFC 9110 section 10.2.3); None unless it is valid."""
        text = self.header("retry-after")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time())
        except (ValueError, TypeError, OverflowError):
            return None


_USUAL = UpstreamsSettings()


class Client:
    """Sends requests to one upstream.

    :param reactor: for connections and deadlines.
    :param bounds: connections, places in queues and sizes that one upstream may use.
    :param metrics: count requests refused for a bound; None if no setting sets the bounds.
    :param via: our name in the Via header (RFC 9110 section 7.6.3), by which we recognize our own
        questions.
    :param endpoints: makes the connections; None connects as the URLs say.
    """

    def __init__(
        self,
        reactor: Any,
        destination: Destination,
        *,
        bounds: UpstreamsSettings = _USUAL,
        metrics: Metrics | None = None,
        via: str = "ncps",
        endpoints: IAgentEndpointFactory | None = None,
    ) -> None:
        self._via = via
        self._clock = cast("IReactorTime", reactor)
        self._timeouts = destination.timeouts
        self._credentials = destination.credentials
        self._origin = destination.origin
        self._gets_traces = destination.gets_traces
        self._own_lines = _own_lines(destination.credentials)
        self._requesters = Requesters(reactor, destination, bounds, endpoints)
        self._count_plain = (lambda: None) if metrics is None else metrics.short_ways("request").inc
        self.bounds = bounds
        self.turns = Turns(self._clock, self._origin[1], bounds, metrics)

    @staticmethod
    def host_of(url: str) -> str:
        """Return the host name in a URL, without port."""
        return urlsplit(url).hostname or ""

    async def close(self) -> None:
        """Close the idle connections."""
        await self._requesters.close()

    def discard(self) -> None:
        """Begin to close the idle connections."""
        self._requesters.close()

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
        """Send a request, follow redirects, and return the answer when its head has arrived.

        The caller reads the body to its end or closes it. Raises Unavailable or Corrupt if no
        answer comes, or if a redirect may not be followed.

        :param follows: whether to follow redirects; if not, they are answers like any other.
        :param is_nar: whether the answer has the longer deadline of a NAR.
        """
        times = self._timeouts
        wait_s = times.connect_s + (times.nar_s if is_nar else times.first_byte_s)
        for hop in range(self.bounds.max_redirects + 1):
            try:
                answer = await self._answered(method, url, headers or {}, accept_encoding, wait_s)
            except InternalAddress as error:
                problem = (
                    f"{self.host_of(url)} leads to {error.address}, an internal address, and the"
                    f" upstream is not at one; {SETTING} would allow it"
                )
                if hop:
                    raise Unavailable(f"a redirect to {problem}", kind="status") from None
                raise Corrupt(problem) from None
            if answer.status not in _REDIRECTS or not follows:
                return answer
            location = answer.header("location")
            answer.body.close()
            url = _redirected(url, location)
        self.turns.reached("cache-upstream-max-redirects")
        raise Unavailable(f"more than {self.bounds.max_redirects} redirects", kind="status")

    async def _answered(
        self, method: str, url: str, headers: dict[str, str], accept_encoding: str, wait_s: float
    ) -> Answer:
        def ask() -> Awaitable[Answer]:
            return self._once(method, url, headers, accept_encoding, wait_s)

        try:
            return await traced(method, url, ask)
        except _Cut:  # no byte of the answer came: try again, as after a stale connection
            return await traced(method, url, ask, resent=1)

    async def _once(
        self, method: str, url: str, extra: dict[str, str], accept_encoding: str, wait_s: float
    ) -> Answer:
        try:
            plain = self._requesters.plain
            path = "" if plain is None else plain.path_of(url)
            send: Callable[[], Deferred[AnswerHead]]
            if plain is not None and path:
                send = partial(plain.request, method, path, self._lines(extra, accept_encoding))
                self._count_plain()
            else:
                sent = self._headers(url, extra)
                requester = await self._requesters.choose(url)
                send = partial(requester.request, method, url, sent, accept_encoding)
            head = await self._sent(send, wait_s)
        except _CUTS as error:
            wrong = _reasons(error)[0]
            if isinstance(wrong, WrongCertificate):
                raise Unavailable(str(wrong)) from error
            if isinstance(wrong, HeadTooLarge):
                self.turns.reached("cache-upstream-max-header-size")
                raise Unavailable(str(wrong), kind="malformed") from error
            raise _Cut(reason_of(wrong), timed_out=_is_timeout(error)) from error
        except ProxyTrouble as error:
            raise Unavailable(str(error), timed_out=error.timed_out, kind=error.kind) from error
        except NameTrouble as error:
            raise _unnamed(error) from error
        except (ConnectError, DNSLookupError, OSError) as error:
            raise Unavailable(reason_of(error), timed_out=_is_timeout(error)) from error
        except (ValueError, WebError, SchemeNotSupported) as error:
            raise Corrupt(f"not HTTP: {reason_of(error)}", kind="malformed") from error
        return self._answer(url, head)

    def _headers(self, url: str, extra: dict[str, str]) -> Headers:
        """Return the headers of a request. Raises ValueError if the URL is none."""
        fields = {"user-agent": AGENT, "via": trail.via(self._via), **extra}
        sent = Headers({name.encode(): [value.encode()] for name, value in fields.items()})
        if origin_of(url) == self._origin:  # only the upstream itself gets the others
            if self._credentials is not None:
                sent.setRawHeaders(b"authorization", [self._credentials.header()])
            for name, value in trace_headers().items() if self._gets_traces else ():
                sent.setRawHeaders(name, [value])
        return sent

    def _lines(self, extra: dict[str, str], accept_encoding: str) -> bytes:
        """Return the headers of a plain request, as lines of its head."""
        fields = {"accept-encoding": accept_encoding, "via": trail.via(self._via), **extra}
        text = "".join([f"{name.title()}: {value}\r\n" for name, value in fields.items()])
        lines = self._own_lines + text.encode()
        for name, value in trace_headers().items() if self._gets_traces else ():
            lines += b"%b: %b\r\n" % (name, value)
        return lines

    async def _sent(self, send: Callable[[], Deferred[AnswerHead]], wait_s: float) -> AnswerHead:
        """Send one request; wait for the head of its answer, at most `wait_s` seconds.

        A cancelled request fails in many ways. `addTimeout` knows few of them, and most look like a
        broken connection.
        """
        cancelled: list[Exception] = []

        def cancel(_: object) -> None:
            cancelled.append(CancelledError())
            request.cancel()

        def expire() -> None:
            cancelled.append(Unavailable(f"no answer within {wait_s:g} s", timed_out=True))
            head.cancel()

        def settle(result: AnswerHead | Failure) -> None:
            if not head.called:
                head.callback(result)

        head: Deferred[AnswerHead] = Deferred(cancel)
        request = send()
        request.addBoth(settle)
        timer = self._clock.callLater(wait_s, expire)
        try:
            return await head
        except Exception:
            if cancelled:
                raise cancelled[0] from None
            raise
        finally:
            if timer.active():
                timer.cancel()

    def _answer(self, url: str, head: AnswerHead) -> Answer:
        body = BodyReader(clock=self._clock, idle_after=self._timeouts.idle_s)
        head.deliver(body)
        return Answer(
            url=url,
            status=head.status,
            values=head.values,
            encoding=head.encoding.lower().replace("identity", ""),
            content_length=head.length,
            body=body,
        )


def _own_lines(credentials: BasicCredentials | None) -> bytes:
    """Return the lines in the head of each plain request."""
    line = b"" if credentials is None else b"Authorization: %b\r\n" % credentials.header()
    return b"User-Agent: %b\r\n" % AGENT.encode() + line


def _redirected(url: str, location: str) -> str:
    if not location:
        raise Unavailable("a redirect without a Location", kind="status")
    try:
        target = urljoin(url, location)
        scheme, *_ = origin_of(target)
    except ValueError:
        raise Unavailable("a redirect to an invalid URL", kind="status") from None
    if scheme not in {"http", "https"} or (scheme == "http" and url.startswith("https:")):
        raise Unavailable(f"a redirect to {scheme or 'nowhere'} is not followed", kind="status")
    return target


def _unnamed(error: NameTrouble) -> Unavailable:
    """Return the error for a host name whose look-up failed."""
    return Busy(str(error)) if error.is_ours else Unavailable(str(error), timed_out=error.timed_out)


def _reasons(error: Exception) -> list[Exception]:
    """Return the failures inside a failure, or the failure itself if it wraps none."""
    return [reason.value for reason in getattr(error, "reasons", None) or []] or [error]


def _is_timeout(error: Exception) -> bool:
    return any("Timeout" in type(reason).__name__ for reason in (error, *_reasons(error)))
