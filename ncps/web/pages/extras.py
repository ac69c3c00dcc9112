"""Logs, listings and debug information over HTTP, also for debuginfod's clients."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.aio.bulkhead import Bulkhead
from ncps.auth.guard import Forbidden, permitted
from ncps.auth.principal import Scope
from ncps.cache.extras.answers import Extras, ServedExtra
from ncps.errors import Malformed, NcpsError, NotFound, TooLarge
from ncps.nix.debuginfo import MAX_SIZE as MAX_LINK_SIZE
from ncps.nix.listing import check_listing
from ncps.observe.metrics import Metrics
from ncps.web.answer import TEXT, send
from ncps.web.pages.nar import pour
from ncps.web.pages.narinfo import outcome_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond

JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
CACHE_CONTROL: Final = b"public, max-age=60"

AT_ONCE: Final = 8
"""Uploaded logs that are in memory at the same time, at most."""

QUEUE: Final = 100
"""Uploads that wait for their turn, at most."""

PATIENCE_S: Final = 60.0
"""Seconds for which each upload waits, at most."""

MAX_LISTING_SIZE: Final = 1024**3
"""Bytes of an uploaded listing, at most; they are kept neither in memory nor in the store."""

_END: Final = 512
"""Bytes at each end of an uploaded listing that are checked."""


class ExtraPages:
    """The pages of `grammar.extras`."""

    def __init__(self, extras: Extras, metrics: Metrics, clock: IReactorTime) -> None:
        self._extras = extras
        self._served = metrics.extras_served
        self._places = Bulkhead(
            clock, "uploaded logs", size=AT_ONCE, queue=QUEUE, patience_s=PATIENCE_S
        )

    # Reading

    def log(self, request: NcpsRequest, name: str) -> int:
        """Answer with the log of a derivation."""
        return respond(request, self._log(request, name))

    async def _log(self, request: NcpsRequest, name: str) -> None:
        permitted(request.principal, Scope.READ, name)
        found = self._extras.log(name, is_local=request.is_upload)
        await self._answer(request, "log", found, TEXT)

    def listing(self, request: NcpsRequest, digest: str) -> int:
        """Answer with the listing of a store path."""
        request.digest = digest
        found = self._extras.listing(digest, is_local=request.is_upload)
        return respond(request, self._answer(request, "listing", found, JSON))

    def link(self, request: NcpsRequest, build_id: str) -> int:
        """Answer with the link of a build ID."""
        found = self._extras.debug_link(build_id, is_local=request.is_upload)
        return respond(request, self._answer(request, "debuginfo", found, JSON))

    def symbols(self, request: NcpsRequest, build_id: str) -> int:
        """Answer a request of debuginfod's clients for the symbols of a build ID."""
        found = self._extras.symbols(build_id)
        return respond(request, self._answer(request, "symbols", found, BINARY))

    async def _answer(
        self, request: NcpsRequest, kind: str, found: Awaitable[ServedExtra], content_type: bytes
    ) -> None:
        try:
            extra = await found
        except Malformed as error:
            raise NotFound(f"no {kind} has such a name: {error}") from error
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served(kind, "miss").inc()
            raise
        try:
            if extra.path:
                permitted(request.principal, Scope.READ, extra.path)
            explain(request, extra.outcome, extra.upstream)
            self._served(kind, extra.outcome.value).inc()
            request.setHeader(b"Content-Type", content_type)
            request.setHeader(b"Content-Length", b"%d" % extra.size)
            request.setHeader(b"Cache-Control", CACHE_CONTROL)
            request.setHeader(b"X-Content-Type-Options", b"nosniff")
            if request.method == b"HEAD":
                request.write(b"")
            elif extra.size:
                await pour(aiter(extra.body), request, extra.size)
            else:
                request.write(b"")
        finally:
            extra.body.close()

    # Writing

    def put_log(self, request: NcpsRequest, name: str) -> int:
        """Accept the log of a derivation."""
        return respond(request, self._put_log(request, name))

    async def _put_log(self, request: NcpsRequest, name: str) -> None:
        permitted(request.principal, Scope.WRITE, name)
        async with self._places:
            text = await request.incoming().read(self._extras.max_size)
            encoding = (request.getHeader(b"content-encoding") or b"").decode("latin-1")
            is_new = await self._extras.add_log(name, text, encoding)
        _taken(request, is_new=is_new)

    def put_link(self, request: NcpsRequest, build_id: str) -> int:
        """Accept the link of a build ID."""
        return respond(request, self._put_link(request, build_id))

    async def _put_link(self, request: NcpsRequest, build_id: str) -> None:
        if request.principal.paths is not None:
            raise Forbidden("these credentials are for some store paths; links need all")
        text = await request.incoming().read(MAX_LINK_SIZE)
        _taken(request, is_new=await self._extras.add_debug_link(build_id, text))

    def put_listing(self, request: NcpsRequest, digest: str) -> int:
        """Accept a listing and drop it: ncps makes its own from the NAR."""
        request.digest = digest
        return respond(request, self._put_listing(request))

    async def _put_listing(self, request: NcpsRequest) -> None:
        head, tail, size = b"", b"", 0
        async for piece in request.incoming():
            size += len(piece)
            if size > MAX_LISTING_SIZE:
                raise TooLarge(f"a listing of more than {MAX_LISTING_SIZE} bytes")
            head += piece[: _END - len(head)]
            tail = (tail + piece)[-_END:]
        if not request.getHeader(b"content-encoding"):
            check_listing(tail if size <= _END else head + tail)
        _taken(request, is_new=False)


def _taken(request: NcpsRequest, *, is_new: bool) -> None:
    """Answer that an upload is stored durably."""
    request.setResponseCode(201 if is_new else 200)
    request.setHeader(b"Cache-Control", b"no-store")
    send(request, b"", TEXT)
