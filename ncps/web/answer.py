"""Short answers, written without waiting: a status and a line of text, a refusal, an error.

`respond` has the bridge from coroutines to responses; requests and pages both use this module.
"""

from __future__ import annotations

import math
from uuid import uuid4

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from ncps.web.fast.channel import NcpsChannel

TEXT = b"text/plain; charset=utf-8"
ALLOW = b"GET, HEAD, OPTIONS"
RETRY_AFTER = 5.0  # seconds, if the error gives no time; Nix waits that long since 2.35

_log = Logger()


class AnswerableRequest(Request):
    """A request that knows whether its client has gone, and that can be cut off."""

    channel: NcpsChannel
    gone = False
    """Whether the connection is closed, so that nothing can be written or finished."""

    _of_body: tuple[bytes, ...] = ()

    def describe_body(self, name: bytes, value: bytes) -> None:
        """Set a header of the body; `drop_body` removes it if another answer takes its place."""
        self._of_body += (name,)
        self.setHeader(name, value)

    def drop_body(self) -> None:
        """Remove all headers of the body, and the status; the client has got nothing yet."""
        self.setResponseCode(200)
        for name in self._of_body:
            self.responseHeaders.removeHeader(name)
        self._of_body = ()

    def abort(self) -> None:
        """Cut the connection, so that an incomplete response does not look complete."""
        channel = self.__dict__.get("channel")  # until the response is finished
        if channel is not None and not self.gone:
            channel.transport.abortConnection()


def fail(request: AnswerableRequest, failure: Failure) -> None:
    """Log an unexpected error, and tell the client the number of its log line."""
    if request.startedWriting:
        request.abort()  # before anything else, which may fail
    request_id = uuid4().hex[:12]
    _log.failure("request {request_id} failed", failure, request_id=request_id)
    if not request.startedWriting:
        tell(request, 500, f"internal error; the log has more under {request_id}")


def send(request: AnswerableRequest, body: bytes, content_type: bytes) -> None:
    """Write the head and the body of a response, without finishing it; for HEAD only the head."""
    headers = request.responseHeaders
    headers.setRawHeaders(b"Content-Type", [content_type])
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    request.write(b"" if request.method == b"HEAD" else body)


def tell(
    request: AnswerableRequest, status: int, text: str, *, retry_after: float | None = None
) -> None:
    """Answer with a status and a line of text, and finish."""
    if request.gone:
        return
    _compose(request, status, retry_after)
    send(request, f"{text}\n".encode(), TEXT)
    request.finish()


def make_private(headers: Headers) -> None:
    """Forbid shared caches to keep an answer; the client itself may keep it as before."""
    said = (headers.getRawHeaders(b"cache-control") or [b""])[0]
    if b"no-store" not in said:
        headers.setRawHeaders(b"Cache-Control", [b"private" + said.removeprefix(b"public")])


def refuse_method(
    request: AnswerableRequest, allowed: bytes = ALLOW, text: str = "method not allowed here"
) -> None:
    """Answer 405."""
    request.setHeader(b"Allow", allowed)
    tell(request, 405, text)


def tell_methods(request: AnswerableRequest, allowed: bytes = ALLOW) -> None:
    """Answer OPTIONS with the methods of the path."""
    request.setResponseCode(204)
    request.setHeader(b"Allow", allowed)
    request.finish()


def _compose(request: AnswerableRequest, status: int, retry_after: float | None) -> None:
    """Set the status, and drop the headers of another answer; those of a file stay with 416."""
    if status != 416:
        request.drop_body()
    request.setResponseCode(status)
    request.setHeader(b"Cache-Control", b"no-store")
    if retry_after is not None:
        request.setHeader(b"Retry-After", b"%d" % math.ceil(retry_after))
