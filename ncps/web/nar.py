"""NARs over HTTP: whole or in part, stored or still arriving.

The bytes behind a NAR's URL never change, so the URL itself is the strong entity tag, and a client
that was cut off at any byte goes on from there. The exact length is checked on the way out, and
the piece that would complete a response of known length waits until the body has ended without an
error: what looks complete to the client is complete.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ncps.cache.verbs import Cache, Resized, ServedNar
from ncps.errors import Corrupt, NcpsError
from ncps.metrics import Metrics
from ncps.nix.narurl import NarKey
from ncps.ranges import Unsatisfiable, content_range, if_none_match, if_range_matches, parse
from ncps.streams import ResponseWriter
from ncps.web.narinfo import outcome_of, result_of
from ncps.web.respond import TEXT, explain, respond, send
from ncps.web.site import NcpsRequest

CONTENT_TYPE = b"application/x-nix-nar"
CACHE_CONTROL = b"public, max-age=31536000, immutable"

SIZINGS = 3
"""How many sizes of one NAR are believed in turn: upstreams say what they like of it."""


class NarPages:
    """Answers `/nar/<file>`."""

    def __init__(self, cache: Cache, metrics: Metrics) -> None:
        self._cache = cache
        self._served = metrics.nar_served

    def render(self, request: NcpsRequest, key: NarKey) -> int:
        """See `routes.Nars`."""
        request.digest = key.file_name
        etag = b'"%b"' % key.file_name.encode("ascii")
        request.setHeader(b"ETag", etag)
        request.setHeader(b"Accept-Ranges", b"bytes")
        request.setHeader(b"Cache-Control", CACHE_CONTROL)
        if if_none_match(request.getHeader(b"if-none-match"), etag):
            return respond(request, self._describe(request, key, 304))
        if request.method == b"HEAD":
            return respond(request, self._describe(request, key, 200))
        return respond(request, self._deliver(request, key, etag))

    async def _describe(self, request: NcpsRequest, key: NarKey, status: int) -> None:
        """Answer without bytes, once it is sure that they could be had."""
        try:
            size, outcome = await self._cache.stat_nar(key)
        except NcpsError as error:
            explain(request, outcome_of(error))
            raise
        explain(request, outcome)
        request.setResponseCode(status)
        if status == 200:
            request.setHeader(b"Content-Type", CONTENT_TYPE)
            if size is not None:
                request.setHeader(b"Content-Length", b"%d" % size)

    async def _deliver(self, request: NcpsRequest, key: NarKey, etag: bytes) -> None:
        try:
            is_part = request.getHeader(b"range") is not None
            nar = await self._cache.nar(key, is_part=is_part)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("miss", "error", "").inc()
            raise
        status = "error"
        try:
            explain(request, nar.outcome, nar.upstream, nar.timings)
            location = await nar.location()
            if location is None:
                await _send_once_sized(request, nar, etag)
            else:
                _send_elsewhere(request, location)
            status = "success"
        finally:
            nar.close()
            self._served(result_of(nar.outcome), status, nar.upstream).inc()


async def _send_once_sized(request: NcpsRequest, nar: ServedNar, etag: bytes) -> None:
    """Send, and begin anew if the size turns out another one before anybody is told of it."""
    for _ in range(SIZINGS - 1):
        try:
            return await _send(request, nar, etag)
        except Resized:
            if request.startedWriting:
                raise
            request.setResponseCode(200)
            for header in (b"content-length", b"content-range"):
                request.responseHeaders.removeHeader(header)
    return await _send(request, nar, etag)


def _send_elsewhere(request: NcpsRequest, location: str) -> None:
    """Name the place where the bytes are, for this once: the URL of ours stays the one to ask.

    A range and its condition are the client's to repeat there; HEAD is always answered here,
    since the address is signed for GET.
    """
    for name in (b"ETag", b"Accept-Ranges"):
        request.responseHeaders.removeHeader(name)
    request.setResponseCode(307)
    request.setHeader(b"Location", location.encode("ascii"))
    request.setHeader(b"Cache-Control", b"no-store")
    send(request, b"", TEXT)


async def _send(request: NcpsRequest, nar: ServedNar, etag: bytes) -> None:
    spec = parse(request.getHeader(b"range"))
    if spec is not None and not if_range_matches(request.getHeader(b"if-range"), etag):
        spec = None
    size, start, stop = nar.size, 0, None
    if size is None and (spec is not None or request.clientproto == b"HTTP/1.0"):
        # A Content-Range must name its end, and in HTTP/1.0 only a length shows a cut.
        size = await nar.known_size()
    length = size
    if spec is not None and size is not None:
        try:
            wanted = spec.resolve(size)
        except Unsatisfiable as error:
            request.setHeader(b"Content-Range", error.content_range)
            raise
        start, stop, length = wanted.start, wanted.stop, wanted.length
        request.setResponseCode(206)
        request.setHeader(b"Content-Range", content_range(wanted, size))
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    if length is not None:
        request.setHeader(b"Content-Length", b"%d" % length)
    body = await nar.body(start, stop)
    try:
        if size is not None and nar.size != size:
            raise Resized(f"the file was said to have {size} bytes, and has not")
        await pour(aiter(body), request, length)
    finally:
        body.close()


async def pour(chunks: AsyncIterator[bytes], request: NcpsRequest, length: int | None) -> None:
    """Write a body, which must have `length` bytes in all if that is known; else Corrupt."""
    limits = request.site.limits

    def cut(why: str) -> None:
        limit = "server-write-stall-timeout" if why == "stalled" else "server-min-send-rate"
        request.site.metrics.limit_reached(limit).inc()
        request.abort()

    writer = ResponseWriter(
        request,
        clock=request.site.clock,
        stall_after=limits.stall,
        unsent=request.unsent,
        abort=cut,
        rate=limits.rate,
        window=limits.window,
    )
    due, last = length, b""
    try:
        async for chunk in chunks:
            if due is None:
                await writer.write(chunk)
                continue
            due -= len(chunk)
            if due < 0:
                raise Corrupt(f"body is longer than its {length} bytes")
            if due == 0:
                last += chunk
            else:
                await writer.write(chunk)
        if due:
            raise Corrupt(f"body ended {due} bytes short of {length}")
        if last:
            await writer.write(last)
    finally:
        writer.close()
