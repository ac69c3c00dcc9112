"""The requests that pages answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

from twisted.python.failure import Failure

from ncps.auth.principal import NOBODY, Principal
from ncps.observe.metrics import NO_ROUTE, PROBES
from ncps.observe.tracing.spans import NO_SPAN, Span, within
from ncps.web import traced
from ncps.web.answer import RETRY_AFTER, fail, make_private, tell
from ncps.web.fast.ledger import Access
from ncps.web.fast.transport import send_written
from ncps.web.incoming import IncomingBody, Pace
from ncps.web.sending import FileRequest
from ncps.web.state import SERVER, SiteState
from ncps.web.targets import path_of

LONGEST_LOGGED_PATH = 256
_ALWAYS = frozenset(path.encode("ascii") for path in PROBES)  # they show that ncps is busy


class NcpsRequest(FileRequest):
    """A request that gives its body to a page, and that is logged and counted.

    A page begins when the head has come, and reads the body if there is one. An answer before the
    end of the body also ends the connection.
    """

    defaultContentType = None
    site: SiteState

    route = NO_ROUTE
    """Pattern of the path, for metrics."""
    cache = ""
    """Outcome, if the cache was asked."""
    digest = ""
    """Digest of the store path, or file name of the NAR, if the cache was asked."""
    upstream = ""
    """Name of the upstream of the answer; empty if it came from none."""
    client = ""
    """Address of the client; see `clients`."""
    began = -1.0
    """The time of the clock when the request was complete; negative before."""
    first_byte = 0
    """Position in its file at which the body of the answer begins."""
    span: Span = NO_SPAN
    """The span of all work for this request."""
    is_accounted = False
    """Whether the site has logged and counted it."""
    has_known_head = False
    """Whether its headers are shared with other requests, and Twisted has not seen its head."""
    body: IncomingBody | None = None
    """The body of the request; None if it has none."""
    principal: Principal = NOBODY
    """The client, as its credentials name it."""
    is_private = False
    """Whether the answer is for this client only, so that a shared proxy must not keep it."""
    is_endless = False
    """Whether bytes of a body may follow whose length the client has not announced."""
    is_upload = False
    """Whether the path is below `/upload`, so that its answer asks no upstream."""

    def gotLength(self, length: int | None) -> None:
        """See `twisted.web.http.Request`: the head is complete, a body follows unless 0."""
        self.content = BytesIO()  # Twisted closes it
        if length == 0:
            return
        self._begin(self.channel._command, self.channel._path, self.channel._version)
        self._expect_body(length)
        self.process()

    def _expect_body(self, length: int | None) -> None:
        is_expectant = (self.getHeader(b"expect") or b"").lower() == b"100-continue"
        if not self.has_known_head:
            self.requestHeaders.removeHeader(b"Expect")  # else Twisted would send 100 Continue
        self.channel.expect_body()
        self.site.receiving += 1
        self.body = self._body_of(length, is_expectant and self.clientproto == b"HTTP/1.1")

    def _body_of(self, length: int | None, is_expectant: bool) -> IncomingBody:
        site = self.site
        pace = Pace.of(site.limits, lambda limit: site.metrics.limit_reached(limit).inc())
        return IncomingBody(
            self.channel, site.clock, pace, length=length, is_expectant=is_expectant
        )

    def incoming(self) -> IncomingBody:
        """Return the body; an empty one if the request has none."""
        return self.body if self.body is not None else self._body_of(0, False)

    def handleContentChunk(self, data: bytes) -> None:
        """See `twisted.web.http.Request`."""
        assert self.body is not None
        self.body.came(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See `twisted.web.http.Request`: the body has ended, if there is one."""
        if self.body is None:
            self._begin(command, path, version)
            self.process()
        else:
            self.body.ended()

    def write(self, data: bytes) -> None:
        """See `twisted.web.http.Request`; the head and the first bytes are sent immediately."""
        if self.startedWriting or self.gone:
            super().write(data)
            return
        if self._lacks_body:
            self.setHeader(b"Connection", b"close")
        if self.is_private:
            make_private(self.responseHeaders)
        send_written(self.channel.transport, partial(super().write, data))

    def finish(self) -> None:
        """See `twisted.web.http.Request`; an unread body ends the connection."""
        if not self._lacks_body:
            super().finish()
            return
        if not self.startedWriting:
            self.write(b"")
        self.site.log(self)
        self.channel.linger()

    @property
    def _lacks_body(self) -> bool:
        return self.is_endless or (self.body is not None and not self.body.is_whole)

    def process(self) -> None:
        """See `twisted.web.server.Request`; the root is a leaf, so no children are searched."""
        if self.go_on is not None:
            _answer(self, self.go_on)
            return
        if self.site.answering > self.site.limits.max_requests and self.path not in _ALWAYS:
            self.site.metrics.limit_reached("server-max-requests").inc()
            tell(self, 503, "too busy", retry_after=RETRY_AFTER)
            return
        if self.channel.is_proxied and self.site.is_crowded(self.client):
            tell(self, 503, "too many requests at the same time", retry_after=RETRY_AFTER)
            return
        if self.body is not None and self.site.receiving > self.site.limits.max_uploads:
            self.site.metrics.limit_reached("server-max-uploads").inc()
            tell(self, 503, "too many uploads at the same time", retry_after=RETRY_AFTER)
            return
        _answer(self, lambda request: request.render(self.site.resource))

    def _begin(self, command: bytes, target: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, target, version
        self.path = path_of(target)
        self.args = {}
        self.channel.head_complete()
        self.site = self.channel.site
        is_traced = self.site.tracer.is_on and self.requestHeaders.hasHeader(b"traceparent")
        if self.channel.new_head is not None and not is_traced:
            self.site.heads.learn(self.channel.new_head, self.requestHeaders)
        self.client = self.channel.client_of(self.requestHeaders)
        self.began = self.site.clock.seconds()
        self.site.answering += 1
        if self.site.tracer.is_on and self.path not in _ALWAYS:
            self.span = traced.begun(
                self.site.tracer,
                command,
                self.path[:LONGEST_LOGGED_PATH],
                version,
                self.requestHeaders,
                self.client,
            )
            if getattr(self.channel.transport, "is_encrypted", False):
                self.span.set("url.scheme", "https")
        if self.channel.is_proxied:
            self.site.entered(self.client)
        self.setHeader(b"Server", SERVER)
        self.setHeader(b"Date", self.site.date())
        if self.site.is_draining or self.channel.is_last:
            self.channel.persistent = 0
            self.setHeader(b"Connection", b"close")

    def processingFailed(self, reason: Failure) -> Failure:
        """See `twisted.web.server.Request`: answer an unexpected error outside a coroutine."""
        fail(self, reason)
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """See `twisted.web.http.Request`: the client left before the response was finished."""
        self.gone = True
        if self.began >= 0:
            self.site.log(self)
        super().connectionLost(reason)

    def account(self) -> Access:
        """End the span of a request that has ended, and return its record.

        The record has neither the query nor the headers.
        """
        ended = self.site.clock.seconds()
        access = Access(
            ended=ended,
            route=self.route,
            method=self.method.decode("ascii"),
            path=self.path[:LONGEST_LOGGED_PATH].decode("ascii", "backslashreplace"),
            status=self.code,
            size=self.sentLength if self.body is None else self.body.received,
            elapsed=ended - self.began,
            is_complete=not self.gone,
            cache=self.cache,
            digest=self.digest,
            upstream=self.upstream,
            client=self.client,
            user=self.principal.name,
            trace_id=self.span.trace_id,
            span_id=self.span.span_id,
        )
        if self.span is not NO_SPAN:
            traced.ended(self.span, access)
        return access

    @property
    def elapsed(self) -> float:
        """Seconds since the request was complete."""
        return self.site.clock.seconds() - self.began


def _answer(request: NcpsRequest, answer: Callable[[Any], object]) -> None:
    """Answer a request within its span."""
    try:
        with within(request.span):
            answer(request)
    except Exception:  # noqa: BLE001 - nothing awaits here; an error of one request must end no other
        request.processingFailed(Failure())
