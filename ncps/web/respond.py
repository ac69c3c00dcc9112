"""The bridge from coroutines to responses, and the table from errors to statuses.

The coroutine of a page writes its response and returns; the bridge finishes it, exactly once. If
the client leaves, the coroutine is cancelled. If it raises before anything was sent, the table
gives the answer. Once the head was sent, the bridge cuts the connection, because a normal end
would make an incomplete body look complete.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from ncps.aio.streams import ClientGone
from ncps.cache.answers import Outcome
from ncps.errors import (
    Conflict,
    Corrupt,
    Malformed,
    NcpsError,
    NotFound,
    Refused,
    SlowClient,
    StorageFull,
    TooLarge,
    Unavailable,
    UnknownEncoding,
    Unusable,
)
from ncps.ports import Blocked
from ncps.ranges import Unsatisfiable
from ncps.web.answer import RETRY_AFTER, fail, tell
from ncps.web.request import NcpsRequest

_READS = frozenset({b"GET", b"HEAD"})

LONGEST_RETRY_AFTER = 60.0  # Nix obeys any time, however long

_log = Logger()


@frozen
class _Reply:
    """The answer to a class of errors.

    A client that reads does not get the text of the error, which is for the log; an error of
    upstreams adds the answer of each upstream (`NcpsError.told`). A client that writes gets the
    text.
    """

    status: int
    text: str
    retry: bool = False


_TIMED_OUT = _Reply(504, "no answer in time", retry=True)
"""The answer if an upstream is late, or for a client that reads, the database or the store."""

_NOT_STORED = _Reply(503, "cannot be stored or removed now", retry=True)
"""The answer to clients that write: 503 even for a timeout, since no upstream takes part."""

_WRITES = frozenset({b"PUT", b"DELETE"})

_BLOCKED = _Reply(403, "not allowed")
"""The answer to a client that writes an object of a blocked path."""

_TABLE: Mapping[type[NcpsError], _Reply] = {
    NotFound: _Reply(404, "not found"),
    Unavailable: _Reply(503, "not available now", retry=True),
    Unusable: _Reply(404, "not found"),
    Corrupt: _Reply(502, "no upstream sent it intact", retry=True),
    Malformed: _Reply(400, "malformed request"),
    Refused: _Reply(403, "not allowed"),
    SlowClient: _Reply(408, "too slow"),
    TooLarge: _Reply(413, "too large"),
    UnknownEncoding: _Reply(415, "unknown encoding"),
    Conflict: _Reply(409, "conflict"),
    StorageFull: _Reply(507, "no room left"),
    Unsatisfiable: _Reply(416, "range outside of the file"),
}


def _reply_to(error: NcpsError, method: bytes) -> _Reply | None:
    if isinstance(error, Blocked) and method not in _READS:
        return _BLOCKED
    if isinstance(error, Unavailable) and method in _WRITES:
        return _NOT_STORED
    if isinstance(error, Unavailable) and error.timed_out and (method in _READS or error.told):
        return _TIMED_OUT
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)


def respond(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> int:
    """Let `coro` answer `request`; return the return value of `render`."""
    answering = Deferred.fromCoroutine(_answer(request, coro))
    if not answering.called:  # most hits are answered without waiting for anything
        # To cancel a coroutine that has ended does nothing, so the order of events is irrelevant.
        request.notifyFinish().addErrback(lambda _: answering.cancel())
    answering.addErrback(partial(_not_answered, request))
    return NOT_DONE_YET


def _not_answered(request: NcpsRequest, failure: Failure) -> None:
    request.abort()
    _log.failure("while answering a request", failure)


async def _answer(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> None:
    try:
        await _answer_or_tell(request, coro)
    except BaseException:  # to tell the client failed, too, or the coroutine was dropped
        request.abort()
        raise


async def _answer_or_tell(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> None:
    try:
        await coro
    except (ClientGone, CancelledError):
        request.abort()
    except NcpsError as error:
        is_read = request.method in _READS
        reply = _reply_to(error, request.method)
        if reply is None:
            fail(request, Failure())
        elif request.startedWriting:
            request.abort()
            _log.warn(
                "{method} {path} from {client}: response cut: {reason}",
                client=request.client,
                method=request.method.decode("ascii"),
                path=request.path.decode("ascii", "backslashreplace"),
                reason=str(error),
            )
        else:
            text = reply.text
            if reply.status >= 500 and error.told:
                text = f"{text}: {error.told}"
            elif not is_read and (reply.status < 500 or reply.status == 507):
                text = f"{text}: {error}"
            tell(request, reply.status, text, retry_after=_retry_after(reply, error))
    except Exception:  # noqa: BLE001 - no error may leave the bridge; cancelling is handled above
        fail(request, Failure())
    else:
        if not request.gone:
            request.finish()


def explain(request: NcpsRequest, outcome: Outcome, upstream: str = "") -> None:
    """Set the headers that name the outcome, and the time that the answer took until now."""
    request.cache, request.upstream = outcome.value, upstream
    headers = request.responseHeaders
    headers.setRawHeaders(b"X-Cache", [request.cache.encode()])
    headers.setRawHeaders(b"Server-Timing", [b"total;dur=%.1f" % (request.elapsed * 1000)])


def _retry_after(reply: _Reply, error: NcpsError) -> float | None:
    if not reply.retry:
        return None
    wanted = getattr(error, "retry_after", None) or RETRY_AFTER
    return min(max(wanted, 1.0), LONGEST_RETRY_AFTER)
