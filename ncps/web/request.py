"""A request as the pages see it."""

from __future__ import annotations

from io import BytesIO

from twisted.python.failure import Failure

from ncps.aio.streams import unsent
from ncps.errors import NcpsError
from ncps.observe.metrics import NO_ROUTE, PROBES
from ncps.web.answer import RETRY_AFTER, AnswerableRequest, fail, refuse_body, tell
from ncps.web.fast.ledger import Access
from ncps.web.state import SERVER, SiteState

LONGEST_LOGGED_PATH = 256
_ALWAYS = frozenset(path.encode("ascii") for path in PROBES)  # by these one learns that we are busy


class NcpsRequest(AnswerableRequest):
    """A request that refuses bodies, knows when its client has gone, and is accounted for."""

    defaultContentType = None
    site: SiteState

    route = NO_ROUTE
    """Pattern of the path, for metrics."""
    cache = ""
    """Outcome, if the cache was asked; likewise `digest` (or NAR file name) and `upstream`."""
    digest = ""
    upstream = ""
    client = ""
    """Address of whoever asks; see `clients`."""
    began = -1.0
    """Clock's time when the request was complete; negative before."""
    first_byte = 0
    """Where in its file the body begins."""
    is_accounted = False
    """Whether the site has counted it out."""
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """See `twisted.web.http.Request`: the head is complete, a body follows unless 0."""
        self.content = BytesIO()
        if length != 0:
            self._refused = True
            self.requestHeaders.removeHeader(b"Expect")  # else Twisted would say 100 Continue
            self._begin(self.channel._command, self.channel._path, self.channel._version)
            refuse_body(self)
            self.site.log(self)

    def handleContentChunk(self, data: bytes) -> None:
        """See `twisted.web.http.Request`: drops what was refused."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See `twisted.web.http.Request`."""
        if not self._refused:
            self._begin(command, path, version)
            self.process()

    def process(self) -> None:
        """See `twisted.web.server.Request`; the root is a leaf, so that nothing is to be walked."""
        if self.site.answering > self.site.limits.max_requests and self.path not in _ALWAYS:
            self.site.metrics.limit_reached("server-max-requests").inc()
            tell(self, 503, "too busy", retry_after=RETRY_AFTER)
            return
        if self.channel.is_proxied and self.site.is_crowded(self.client):
            tell(self, 503, "too many requests at once", retry_after=RETRY_AFTER)
            return
        try:
            self.render(self.site.resource)
        except Exception:  # noqa: BLE001 - nothing awaits here; a request must not take the rest down
            self.processingFailed(Failure())

    def _begin(self, command: bytes, target: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, target, version
        self.path = target.partition(b"?")[0]
        self.args = {}
        self.channel.head_complete()
        self.site = self.channel.site
        if self.channel.new_head is not None:
            self.site.heads.learn(self.channel.new_head, self.requestHeaders)
        self.client = self.channel.client_of(self.requestHeaders)
        self.began = self.site.clock.seconds()
        self.site.answering += 1
        if self.channel.is_proxied:
            self.site.entered(self.client)
        self.setHeader(b"Server", SERVER)
        self.setHeader(b"Date", self.site.date())
        if self.site.is_draining:
            self.channel.persistent = 0
            self.setHeader(b"Connection", b"close")

    def processingFailed(self, reason: Failure) -> Failure:
        """See `twisted.web.server.Request`: an error of ours outside of any coroutine."""
        fail(self, reason)
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """See `twisted.web.http.Request`: the client left before the response was finished."""
        self.gone = True
        if self.began >= 0 and not self._refused:
            self.site.log(self)
        super().connectionLost(reason)

    def account(self) -> Access:
        """What is noted of a request that has ended; never its query or a header."""
        ended = self.site.clock.seconds()
        return Access(
            ended=ended,
            route=self.route,
            method=self.method.decode("ascii"),
            path=self.path[:LONGEST_LOGGED_PATH].decode("ascii", "backslashreplace"),
            status=self.code,
            size=self.sentLength,
            elapsed=ended - self.began,
            is_complete=not self.gone,
            cache=self.cache,
            digest=self.digest,
            upstream=self.upstream,
            client=self.client,
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the request was complete."""
        return self.site.clock.seconds() - self.began

    def send_file(self, fd: int, offset: int, count: int) -> bool:
        """Send bytes of a file as part of the body; False: they are to be written.

        What turns out not to be in memory is left: see `take_unread`.
        Only for a body of known length whose head has been written.
        """
        send = getattr(self.channel.transport, "send_file", None)
        if send is None or not self.startedWriting or self.finished or self.gone:
            return False
        if not send(fd, offset, count):
            return False
        self.sentLength += count
        return True

    def take_unread(self) -> int:
        """Return how many bytes of `send_file` were not sent, since they were not in memory."""
        take = getattr(self.channel.transport, "take_unread", None)
        unread: int = 0 if take is None else take()
        self.sentLength -= unread
        return unread

    @property
    def file_trouble(self) -> NcpsError | None:
        """What was wrong with the file that the connection was cut for."""
        trouble: NcpsError | None = getattr(self.channel.transport, "file_trouble", None)
        return trouble

    def unsent(self) -> int:
        """Bytes on this connection that the client has not taken."""
        return unsent(self.channel.transport)
