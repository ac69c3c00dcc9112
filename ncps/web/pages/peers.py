"""NARs that are arriving, for the other processes of this cache.

    GET  /cluster/nar/<file>     Authorization: <a ticket, see ncps.peering.tickets>
                                 X-Ncps-Offset: <first byte wanted>, default 0
                                 X-Ncps-Worker: <the worker to ask>, if it is another one
    200  X-Ncps-File: <the file that arrives>
         X-Ncps-Offset: <first byte of this body>
    401  the ticket is wrong; X-Ncps-Clock: <our time>, if its time is wrong
    421  the ticket is for another process of this cache

A Range header is no use: its answer needs the size of the whole file, which may not be known before
the download ends. HEAD names the file that arrives, without its bytes. This page fetches nothing: a
NAR that is not arriving is 404.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Protocol

from twisted.web.server import NOT_DONE_YET

from ncps.cache.answers import ArrivingNar
from ncps.nix.narurl import NarKey
from ncps.peering.tickets import SCHEME, Request, TicketVerdict, TicketVerifier
from ncps.ports import Peers
from ncps.ranges import Unsatisfiable
from ncps.web.answer import tell
from ncps.web.pages.nar import CONTENT_TYPE, pour, pour_body
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

FILE = b"X-Ncps-File"
OFFSET = b"X-Ncps-Offset"
WORKER = b"X-Ncps-Worker"
CLOCK = b"X-Ncps-Clock"
_DIGITS = re.compile(rb"[0-9]{1,18}")


class Arrivals(Protocol):
    """The part of the cache that these pages need; see `answers.Cache`."""

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """Open a NAR that is being downloaded."""


class PeerPages:
    """The pages of `/cluster/nar/<file>`.

    :param verifier: checks tickets.
    :param now: returns the time, in seconds since 1970.
    :param siblings: addresses of other workers of this daemon, whose answers we pass on.
    :param peers: asks the siblings.
    """

    def __init__(
        self,
        cache: Arrivals,
        verifier: TicketVerifier,
        now: Callable[[], float],
        *,
        siblings: Collection[str] = (),
        peers: Peers | None = None,
    ) -> None:
        self._cache = cache
        self._siblings = frozenset(siblings)
        self._peers = peers
        self._verifier = verifier
        self._now = now

    def render(self, request: NcpsRequest, key: NarKey) -> int:
        """See `grammar.NarAnswers`."""
        request.digest = key.file_name
        offset = request.getHeader(OFFSET) or b"0"
        worker = (request.getHeader(WORKER) or b"").decode("utf-8", "surrogateescape")
        if not self._admits(request, key, offset, worker):
            return NOT_DONE_YET
        if _DIGITS.fullmatch(offset) is None:
            tell(request, 400, "the offset should be a number")
            return NOT_DONE_YET
        if worker in self._siblings and self._peers is not None:
            return respond(request, self._pass_on(request, self._peers, worker, key, int(offset)))
        return respond(request, self._deliver(request, key, int(offset)))

    def _admits(self, request: NcpsRequest, key: NarKey, offset: bytes, worker: str) -> bool:
        """Check the ticket; answer a request that has no valid one."""
        header = (request.getHeader(b"authorization") or b"").decode("latin-1")
        wanted = Request(
            method=request.method.decode("latin-1"),
            path=f"/cluster/nar/{key.file_name}",
            offset=offset.decode("latin-1"),
            worker=worker,
        )
        verdict = self._verifier.look(header, wanted, self._now())
        if verdict is TicketVerdict.GOOD:
            return True
        if verdict is TicketVerdict.MISDIRECTED:
            tell(request, 421, "for another process of this cache")
            return False
        if verdict is TicketVerdict.UNTIMELY:
            request.setHeader(CLOCK, self._verifier.clock(header, self._now()).encode("ascii"))
        request.setHeader(b"WWW-Authenticate", SCHEME.encode("ascii"))
        tell(request, 401, "for the processes of this cache only")
        return False

    async def _pass_on(
        self, request: NcpsRequest, peers: Peers, worker: str, key: NarKey, offset: int
    ) -> None:
        """Pass on the answer of another worker: the kernel gave us its request."""
        if request.method == b"HEAD":
            _describe(request, offset, file=await peers.find_nar(worker, key))
            return
        body = await peers.open_nar(worker, key, offset=offset)
        try:
            _describe(request, offset, length=body.size)
            request.write(b"")
            await pour(aiter(body), request, body.size)
        finally:
            body.close()

    async def _deliver(self, request: NcpsRequest, key: NarKey, offset: int) -> None:
        nar = await self._cache.arriving_nar(key)
        try:
            size = nar.size
            if size is not None and offset > size:
                raise Unsatisfiable(size)
            length = None if size is None else size - offset
            _describe(request, offset, file=nar.file, length=length)
            if request.method == b"HEAD":
                return
            body = await nar.body(offset)
            try:
                request.write(b"")  # sends the head now: the next byte may come much later
                await pour_body(body, request, length)
            finally:
                body.close()
        finally:
            nar.close()


def _describe(
    request: NcpsRequest, offset: int, *, file: str = "", length: int | None = None
) -> None:
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(FILE, file.encode("ascii", "replace"))
    request.setHeader(OFFSET, b"%d" % offset)
    if length is not None:
        request.setHeader(b"Content-Length", b"%d" % length)
