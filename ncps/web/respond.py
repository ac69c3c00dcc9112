"""The one bridge from coroutines to responses, and the one table from errors to statuses.

A resource's coroutine writes its response and returns; the bridge finishes it, exactly once. If
the client leaves, the coroutine is cancelled. If it raises while nothing was sent, the table says
what the client is told; once the head has left, the connection is cut, because every polite end
would make an incomplete body look complete.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Mapping
from functools import partial
from types import coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from ncps.aio.streams import ClientGone
from ncps.cache.answers import NO_TIMINGS, Outcome
from ncps.errors import (
    Conflict,
    Corrupt,
    Malformed,
    NcpsError,
    NotFound,
    Refused,
    StorageFull,
    Unavailable,
    Unusable,
)
from ncps.ranges import Unsatisfiable
from ncps.web.answer import RETRY_AFTER, fail, tell
from ncps.web.request import NcpsRequest

LONGEST_RETRY_AFTER = 60.0  # Nix obeys without a cap of its own

_log = Logger()


@frozen
class _Told:
    """What a client is told of an error: never the error's own text, which is for the log.

    Of those of upstreams it also is told which of them said what: `NcpsError.told`.
    """

    status: int
    text: str
    retry: bool = False


_TIMED_OUT = _Told(504, "an upstream did not answer in time", retry=True)

_TABLE: Mapping[type[NcpsError], _Told] = {
    NotFound: _Told(404, "not found"),
    Unavailable: _Told(503, "cannot be had now", retry=True),
    Unusable: _Told(404, "not found"),
    Corrupt: _Told(502, "no upstream sent it intact", retry=True),
    Malformed: _Told(400, "malformed request"),
    Refused: _Told(403, "not allowed"),
    Conflict: _Told(409, "other content already has this name"),
    StorageFull: _Told(507, "no room left"),
    Unsatisfiable: _Told(416, "range outside of the file"),
}


def _told(error: NcpsError) -> _Told | None:
    if isinstance(error, Unavailable) and error.timed_out:
        return _TIMED_OUT
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)


def respond(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> int:
    """Let `coro` answer `request`; return what `render` has to return.

    Most hits are answered without waiting for anything. They need no Deferred, which would cost
    as much as the answer itself.
    """
    answer = _answer(request, coro)
    try:
        awaited = answer.send(None)
    except StopIteration:
        return NOT_DONE_YET
    answering = Deferred.fromCoroutine(_go_on(answer, awaited))
    # Cancelling what has ended does nothing, so that any order of events will do.
    request.notifyFinish().addErrback(lambda _: answering.cancel())
    answering.addErrback(partial(_not_answered, request))
    return NOT_DONE_YET


def _not_answered(request: NcpsRequest, failure: Failure) -> None:
    request.abort()
    _log.failure("while answering a request", failure)


@coroutine
def _go_on(
    begun: Coroutine[Deferred[Any], Any, None], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, None]:
    """Await the rest of a coroutine that has begun and is waiting for `awaited`."""
    try:
        while True:
            try:
                result = yield awaited
            except Exception as error:  # noqa: BLE001 - all are passed on, cancelling too
                awaited = begun.throw(error)
            else:
                awaited = begun.send(result)
    except StopIteration:
        return
    finally:
        begun.close()


async def _answer(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> None:
    try:
        await _answer_or_tell(request, coro)
    except BaseException:  # telling the client failed, too, or we are forgotten in the middle
        request.abort()
        raise


async def _answer_or_tell(request: NcpsRequest, coro: Coroutine[Deferred[Any], Any, None]) -> None:
    try:
        await coro
    except (ClientGone, CancelledError):
        request.abort()
    except NcpsError as error:
        told = _told(error)
        if told is None:
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
            text = told.text
            if told.status >= 500 and error.told:
                text = f"{text}: {error.told}"
            tell(request, told.status, text, retry_after=_retry_after(told, error))
    except Exception:  # noqa: BLE001 - the last line of defence; cancelling is handled above
        fail(request, Failure())
    else:
        if not request.gone:
            request.finish()


def explain(
    request: NcpsRequest,
    outcome: Outcome,
    upstream: str = "",
    timings: Mapping[str, float] = NO_TIMINGS,
) -> None:
    """Say how the cache came by the answer, and how long it took until now."""
    request.cache, request.upstream = outcome.value, upstream
    parts = [f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items()]
    parts.append(f"total;dur={request.elapsed * 1000:.1f}")
    headers = request.responseHeaders
    headers.setRawHeaders(b"X-Cache", [request.cache.encode()])
    headers.setRawHeaders(b"Server-Timing", [", ".join(parts).encode()])


def _retry_after(told: _Told, error: NcpsError) -> float | None:
    if not told.retry:
        return None
    wanted = getattr(error, "retry_after", None) or RETRY_AFTER
    return min(max(wanted, 1.0), LONGEST_RETRY_AFTER)
