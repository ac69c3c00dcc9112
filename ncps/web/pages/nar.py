"""NARs over HTTP: whole or in part, stored or still arriving.

The bytes behind a NAR's URL never change, so the URL is the strong entity tag, and a client that
was cut off at any byte can resume there. The length of the body is checked while it is sent. The
piece that would complete a response of known length waits until the body has ended without an
error: so an answer that looks complete to the client is complete.

A client that was cut off with wrong bytes gets the whole file instead of the rest, with
`Accept-Ranges: none` (`ncps.web.misled`). Nix then gives up immediately, curl does not append a
right end to a wrong beginning, and other clients begin again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

from twisted.logger import Logger

from ncps.aio.streams import ClientGone, ResponseWriter, SendLimits
from ncps.cache.answers import NarSource, Resized, ServedNar, WrongBytesSent
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.ports import Body, Segment, is_growing
from ncps.ranges import (
    ByteRange,
    RangeSpec,
    Unsatisfiable,
    content_range,
    if_none_match,
    if_range_matches,
    parse,
)
from ncps.web.answer import TEXT, send
from ncps.web.pages.narinfo import outcome_of, result_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond

PIECE = 8 * 1024 * 1024
"""Bytes of a file given to the connection in one call; it sends them in several turns."""

FIRST = 64 * 1024
"""Bytes written with the head, or if a connection sends no files; they wait in memory."""

READ = 256 * 1024
"""Bytes of a file that is not in memory, which a thread reads in one call."""

CONTENT_TYPE = b"application/x-nix-nar"
CACHE_CONTROL = b"public, max-age=31536000, immutable"

_log = Logger()

SIZINGS = 3
"""Attempts with another size of one NAR, since upstreams may announce wrong sizes."""


class NarPages:
    """The pages of `/nar/<file>`.

    :param takes_uploads: whether clients upload to these paths, too. Then HEAD of a NAR is 404 if
        no upstream can be asked: Nix asks before an upload, and gives up after five 503.
    """

    def __init__(self, cache: NarSource, metrics: Metrics, *, takes_uploads: bool = False) -> None:
        self._cache = cache
        self._takes_uploads = takes_uploads
        self._served = metrics.nar_served

    def render(self, request: NcpsRequest, key: NarKey) -> int:
        """See `grammar.NarsOfClients`."""
        return respond(request, self._answer(request, key))

    def render_old(self, request: NcpsRequest, digest: str, file_name: str) -> int:
        """See `grammar.NarsOfClients`."""
        request.digest = file_name
        return respond(request, self._answer_old(request, digest, file_name))

    async def _answer_old(self, request: NcpsRequest, digest: str, file_name: str) -> None:
        try:
            key = await self._cache.key_of(digest, file_name)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("miss", "error", "").inc()
            raise
        await self._answer(request, key)

    async def _answer(self, request: NcpsRequest, key: NarKey) -> None:
        request.digest = key.file_name
        etag = b'"%b"' % key.file_name.encode("ascii")
        _describe_file(request, etag)
        if if_none_match(request.getHeader(b"if-none-match"), etag):
            await self._describe(request, key, 304)
        elif request.method == b"HEAD":
            await self._describe(request, key, 200)
        else:
            await self._deliver(request, key, etag)

    async def _describe(self, request: NcpsRequest, key: NarKey, status: int) -> None:
        """Answer without a body, after a check that the NAR could be sent."""
        try:
            facts = await self._cache.stat_nar(key)
        except NcpsError as error:
            explain(request, outcome_of(error))
            is_upload = self._takes_uploads and request.method == b"HEAD"
            if is_upload and isinstance(error, Unavailable):
                raise NotFound(f"{key.file_name} is not here, and: {error}") from error
            raise
        explain(request, facts.outcome)
        request.setResponseCode(status)
        if status == 200:
            request.setHeader(b"Content-Type", CONTENT_TYPE)
            if facts.size is not None:
                request.setHeader(b"Content-Length", b"%d" % facts.size)

    async def _deliver(self, request: NcpsRequest, key: NarKey, etag: bytes) -> None:
        """Send a NAR; if stored bytes are wrong and none was sent, use another source once."""
        for is_last in (False, True):
            nar = await self._open(request, key)
            sending = partial(self._send_whole, request, nar, etag)
            if await self._attempt(request, nar, sending, is_last=is_last):
                return
            _begin_anew(request, etag)

    async def _send_whole(self, request: NcpsRequest, nar: ServedNar, etag: bytes) -> None:
        explain(request, nar.outcome, nar.upstream)
        location = await nar.location()
        if location is None:
            await _send_once_sized(request, nar, etag)
        else:
            _send_elsewhere(request, location)

    async def _attempt(
        self,
        request: NcpsRequest,
        nar: ServedNar,
        sending: Callable[[], Awaitable[None]],
        *,
        is_last: bool = True,
    ) -> bool:
        """Send and count a NAR; False if its bytes turned out wrong before any was sent.

        Raises the errors of a body, and Corrupt if another attempt is useless.
        """
        status = "error"
        try:
            await sending()
            status = "success"
        except Corrupt as error:
            if isinstance(error, WrongBytesSent) and request.startedWriting:
                _note_misled(request, nar.key)
            may_go_better = await nar.spoiled(error)
            if is_last or request.startedWriting or not may_go_better:
                raise
            return False
        finally:
            nar.close()
            self._served(result_of(nar.outcome), status, nar.upstream).inc()
        return True

    async def _open(self, request: NcpsRequest, key: NarKey) -> ServedNar:
        try:
            is_part = request.getHeader(b"range") is not None
            is_part = is_part and not _is_misled(request, key.file_name)
            return await self._cache.nar(key, is_part=is_part)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("miss", "error", "").inc()
            raise


def _describe_file(request: NcpsRequest, etag: bytes) -> None:
    """Set the headers that each answer about a NAR has."""
    request.describe_body(b"ETag", etag)
    request.describe_body(b"Accept-Ranges", b"bytes")
    request.describe_body(b"Cache-Control", CACHE_CONTROL)


def _begin_anew(request: NcpsRequest, etag: bytes) -> None:
    """Remove the status and the headers of a body, which no client has got yet."""
    request.drop_body()
    _describe_file(request, etag)


def _note_misled(request: NcpsRequest, key: NarKey) -> None:
    """Remember that the client has wrong bytes; the connection is still open."""
    sent = request.first_byte + request.sentLength
    request.site.misled.add(request.client, key.file_name, sent, request.unsent())


def _wanted(request: NcpsRequest, etag: bytes, file: str) -> RangeSpec | None:
    """Return the part of the file to send; None for the whole file."""
    spec = parse(request.getHeader(b"range"))
    if spec is None or not if_range_matches(request.getHeader(b"if-range"), etag):
        return None
    if _is_misled(request, file):
        request.describe_body(b"Accept-Ranges", b"none")
        _log.info(
            "{client} has wrong bytes of {file}: it gets the whole file instead of the rest",
            client=request.client,
            file=file,
        )
        return None
    return spec


def _is_misled(request: NcpsRequest, file: str) -> bool:
    """Whether the client has wrong bytes before the part that it asks for."""
    spec = parse(request.getHeader(b"range"))
    if spec is None or not spec.first or spec.last is not None:
        return False
    return request.site.misled.has(request.client, file, spec.first)


async def _send_once_sized(request: NcpsRequest, nar: ServedNar, etag: bytes) -> None:
    """Send a NAR; begin again if its size turns out wrong before the client has got it."""
    for _ in range(SIZINGS - 1):
        try:
            return await _send(request, nar, etag)
        except Resized:
            if request.startedWriting:
                raise
            _begin_anew(request, etag)
    return await _send(request, nar, etag)


def _send_elsewhere(request: NcpsRequest, location: str) -> None:
    """Redirect to the place of the bytes, for this request only: our URL remains the right one.

    The client repeats a range and its condition there. HEAD is always answered here, since the
    address is signed for GET.
    """
    request.drop_body()
    request.setResponseCode(307)
    request.setHeader(b"Location", location.encode("ascii"))
    request.setHeader(b"Cache-Control", b"no-store")
    send(request, b"", TEXT)


async def _send(request: NcpsRequest, nar: ServedNar, etag: bytes) -> None:
    spec = _wanted(request, etag, nar.key.file_name)
    size, start, stop = nar.size, 0, None
    if size is None and (spec is not None or request.clientproto == b"HTTP/1.0"):
        # Content-Range needs the end of the part, and HTTP/1.0 shows a cut only by the length.
        size = await nar.known_size()
    length = size
    if spec is not None and size is not None:
        wanted, size = await _resolve(request, nar, spec, size)
        request.first_byte = wanted.start
        start, stop, length = wanted.start, wanted.stop, wanted.length
        request.setResponseCode(206)
        request.describe_body(b"Content-Range", content_range(wanted, size))
    request.describe_body(b"Content-Type", CONTENT_TYPE)
    if length is not None:
        request.describe_body(b"Content-Length", b"%d" % length)
    body = await nar.body(start, stop)
    try:
        if size is not None and nar.size != size:
            raise Resized(f"the file does not have the {size} bytes that were announced")
        await pour_body(body, request, length)
    finally:
        body.close()


async def _resolve(
    request: NcpsRequest, nar: ServedNar, spec: RangeSpec, size: int
) -> tuple[ByteRange, int]:
    """Return the part to send, and the size of the whole file.

    Raises Unsatisfiable if the part is outside the file, Unavailable if the size cannot be known.
    If a part is outside the size that an upstream announces, the final size decides: the file may
    be longer, and a client that was cut at that size needs the rest.
    """
    try:
        with suppress(Unsatisfiable):
            return spec.resolve(size), size
        size = await nar.final_size()
        return spec.resolve(size), size
    except Unsatisfiable as error:
        request.setHeader(b"Content-Range", error.content_range)
        raise


async def pour_body(body: Body, request: NcpsRequest, length: int | None) -> None:
    """Write a body, from its file if it has one. Raises the errors of `pour`."""
    segment = body.segment()
    if segment is not None and segment.length == length:
        await _pour_file(segment, request)
    elif is_growing(body) and length is not None:
        await pour(body.pieces(), request, length)
    else:
        await pour(aiter(body), request, length)


async def _pour_file(segment: Segment, request: NcpsRequest) -> None:
    """Write a body that is a piece of a file."""
    writer = writer_of(request)
    try:
        await _write_segment(segment, request, writer)
    finally:
        writer.close()


async def _write_segment(segment: Segment, request: NcpsRequest, writer: ResponseWriter) -> None:
    """Write a piece of a file, past Twisted's buffers if the connection can do that.

    If the file has become shorter, the connection is cut.
    """
    position, end = segment.offset, segment.offset + segment.length
    while position < end:
        count, most = min(PIECE, end - position), FIRST
        if request.send_segment(segment, position, count):
            try:
                await writer.sent(count)
            except ClientGone:
                if request.file_trouble is not None:
                    raise request.file_trouble from None
                raise
            unread = request.take_unread()
            writer.written -= unread
            position += count - unread
            if not unread:
                continue
            most = READ
        data = await segment.read(min(most, end - position), position)
        await writer.write(data)
        position += len(data)


async def pour(
    pieces: AsyncIterator[bytes | Segment] | AsyncIterator[bytes],
    request: NcpsRequest,
    length: int | None,
) -> None:
    """Write a body. Raises Corrupt if its length is known and is not `length` bytes.

    :param pieces: with segments only if the length is known.
    """
    writer = writer_of(request)
    due = length
    last: bytes | Segment | None = None
    try:
        async for piece in pieces:
            if due is not None:
                due -= piece.length if isinstance(piece, Segment) else len(piece)
                if due < 0:
                    raise Corrupt(f"body is longer than its {length} bytes")
            if due == 0:
                last = piece if last is None else last
            else:
                await _write_piece(piece, request, writer)
        if due:
            raise Corrupt(f"body ended {due} bytes short of {length}")
        if last is not None:
            await _write_piece(last, request, writer)
    finally:
        writer.close()


async def _write_piece(
    piece: bytes | Segment, request: NcpsRequest, writer: ResponseWriter
) -> None:
    if isinstance(piece, Segment):
        await _write_segment(piece, request, writer)
    elif piece:
        await writer.write(piece)


def writer_of(request: NcpsRequest) -> ResponseWriter:
    """Make the writer of a body, which waits for the client, and cuts off a client too slow."""
    limits = request.site.limits

    def cut(why: str) -> None:
        limit = "server-write-stall-timeout" if why == "stalled" else "server-min-send-rate"
        request.site.metrics.limit_reached(limit).inc()
        request.abort()

    return ResponseWriter(
        request,
        clock=request.site.clock,
        limits=SendLimits(
            stall_s=limits.write_stall_timeout_s,
            rate=limits.min_send_rate_bytes,
            window_s=limits.min_send_window_s,
        ),
        unsent=request.unsent,
        abort=cut,
    )
