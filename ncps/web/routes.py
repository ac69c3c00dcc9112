"""The path grammar: the one place that knows which path is answered by what.

A path is matched as it came, undecoded: every path we hand out is plain ASCII, so a percent sign,
a doubled slash or a dot segment never names anything here and is 404 before anything is asked.
Query strings are no part of a name. GET and HEAD are all there is, and OPTIONS, which says so.

    /                     what this is, as JSON
    /nix-cache-info       /pubkey
    /<32>.narinfo         <32>: hash part of a store path
    /nar/<H>.nar[.<ext>]  <H>: 52 digits of nix32 or 64 of hexadecimal
    /nar/<32>-<H>.nar...  /nar/<32>.nar...  as other servers name NARs; see `cache.nar.old_names`
    /cluster/nar/<same>   a NAR on its way, for the other processes of this cache
    /healthz /readyz /metrics
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.narurl import NarKey, UnknownExtension
from ncps.peering import trail
from ncps.web.answer import refuse_method, tell, tell_methods
from ncps.web.request import NcpsRequest

_NIX32 = re.escape(ALPHABET).encode()
_NARINFO = re.compile(rb"/([%b]{32})\.narinfo" % _NIX32)
_NAR = re.compile(
    rb"(/cluster)?/nar/((?:[%b]{52}|[0-9a-f]{64})\.nar(?:\.[A-Za-z0-9]{0,16})?)" % _NIX32
)
_OLD_NAR = re.compile(
    rb"/nar/(([%b]{32})(?:[-_](?:[%b]{52}|[0-9a-f]{64}))?\.nar(?:\.[a-z0-9]{1,16})?)"
    % (_NIX32, _NIX32)
)
_ORIGIN = re.compile(rb"https?://[^/]*", re.IGNORECASE)


class Page(Protocol):
    """Answers one fixed path."""

    def render(self, request: NcpsRequest) -> int:
        """Answer, now or later; see `respond.respond`."""


class NarInfoAnswers(Protocol):
    """Answers for narinfos."""

    def render(self, request: NcpsRequest, digest: str) -> int:
        """Answer for the store path with this hash part."""


class NarAnswers(Protocol):
    """Answers for NARs."""

    def render(self, request: NcpsRequest, key: NarKey) -> int:
        """Answer with this NAR."""


class NarsOfClients(NarAnswers, Protocol):
    """Answers for NARs, also by the names that other servers give them."""

    def render_old(self, request: NcpsRequest, digest: str, file_name: str) -> int:
        """Answer with the NAR of a store path, if this is its name; see `Cache.key_of`."""


@implementer(IResource)
class Routes:
    """The root of the site, and its only resource in Twisted's sense.

    :param pages: by path.
    :param via: our own name in the Via header: a request that bears it has come round to us,
        through an upstream.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        pages: Mapping[bytes, Page],
        *,
        narinfos: NarInfoAnswers,
        nars: NarsOfClients,
        peers: NarAnswers,
        via: str = "",
    ) -> None:
        self._via = via
        self._has_told_of_loop = False
        self._pages = {path: (path.decode("ascii"), page) for path, page in pages.items()}
        self._narinfos = narinfos
        self._nars = nars
        self._peers = peers

    def render(self, request: NcpsRequest) -> int:
        """See `IResource`."""
        path = request.path
        if path[:1] != b"/":  # absolute-form, which a server must accept (RFC 9112, 3.2.2)
            path = _ORIGIN.sub(b"", path, count=1)
        match = _NARINFO.fullmatch(path)
        if match is not None:
            request.route = "/{hash}.narinfo"
            if _is_read(request):
                digest = match[1].decode("ascii")
                self._follow(request, lambda: self._narinfos.render(request, digest))
            return NOT_DONE_YET
        match = _NAR.fullmatch(path)
        if match is not None:
            request.route = "/cluster/nar/{file}" if match[1] else "/nar/{file}"
            if _is_read(request):
                name, pages = match[2].decode("ascii"), self._peers if match[1] else self._nars
                self._follow(request, lambda: _render_nar(request, name, pages))
            return NOT_DONE_YET
        match = _OLD_NAR.fullmatch(path)
        if match is not None:
            request.route = "/nar/{file}"
            if _is_read(request):
                file_name, digest = match[1].decode("ascii"), match[2].decode("ascii")
                self._follow(request, lambda: self._nars.render_old(request, digest, file_name))
            return NOT_DONE_YET
        if path == b"*" and request.method == b"OPTIONS":
            tell_methods(request)
            return NOT_DONE_YET
        route, page = self._pages.get(path, ("", None))
        if page is None:
            tell(request, 404, "no such path")
            return NOT_DONE_YET
        request.route = route
        return page.render(request) if _is_read(request) else NOT_DONE_YET

    def _follow(self, request: NcpsRequest, answer: Callable[[], object]) -> None:
        """Let a request be answered as one that has come through the caches in its Via header."""
        header = request.getHeader(b"via")
        if header is None:
            answer()
            return
        try:
            found = trail.read_via(header.decode("latin-1"), self._via)
        except Malformed as error:
            request.setHeader(trail.MARK.encode(), trail.RING.encode())
            tell(request, 404, f"not found: {error}")
            return
        if found.names[-1:] == (self._via,) and not self._has_told_of_loop:
            self._has_told_of_loop = True
            self._log.error("an upstream leads back to this cache: take it out of the upstreams")
        with trail.following(found):
            answer()

    def getChildWithDefault(self, name: bytes, request: NcpsRequest) -> Routes:
        """See `IResource`: never called, a leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """See `IResource`."""
        raise TypeError("routes are fixed")


def _render_nar(request: NcpsRequest, file_name: str, pages: NarAnswers) -> int:
    try:
        key = NarKey.parse(file_name)
    except UnknownExtension:
        tell(request, 400, "unknown compression extension")
    except Malformed:
        tell(request, 404, "no such path")
    else:
        return pages.render(request, key)
    return NOT_DONE_YET


def _is_read(request: NcpsRequest) -> bool:
    """Whether something is to be read; if not, answer."""
    if request.method in {b"GET", b"HEAD"}:
        return True
    if request.method == b"OPTIONS":
        tell_methods(request)
    else:
        refuse_method(request)
    return False
