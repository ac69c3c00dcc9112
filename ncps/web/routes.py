"""Routes: from a method and a path to the page that answers.

A path is matched without decoding: every path that ncps hands out is plain ASCII, so a path with a
percent sign, a doubled slash or a dot segment is 404 before a page is called. Query strings are no
part of a name. `grammar` has the paths.

The same pages exist below `/upload`. Reads there ask no upstream, so that a client which checks
whether to upload a path learns what this cache has itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from attrs import evolve, field, frozen
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ncps.auth.principal import Scope
from ncps.errors import Malformed
from ncps.peering import trail
from ncps.web.access import refuse_secret
from ncps.web.answer import refuse_method, tell, tell_methods
from ncps.web.guard import OpenGuard, RouteGuard
from ncps.web.request import NcpsRequest
from ncps.web.targets import has_secret

UPLOAD: Final = b"/upload"
"""The prefix of the paths of uploads."""

ELSEWHERE: Final = (
    "uploads go below /upload: `nix copy --to http://HOST/upload`"
    " (or set cache-upload-at-root in ncps)"
)
"""The answer to a client that uploads to another path."""

_ORIGIN = re.compile(rb"https?://[^/]*", re.IGNORECASE)


@frozen(kw_only=True)
class Verb:
    """The act of a method on a route.

    :param act: answers a request, now or later, with the match of the path.
    :param scope: the scope that the client needs; None if it needs none.
    :param takes_body: whether the page reads a body; if not, a request with a body gets 413.
    """

    act: Callable[[NcpsRequest, re.Match[bytes]], object]
    scope: Scope | None = Scope.READ
    takes_body: bool = False

    @property
    def is_upload(self) -> bool:
        """Whether its requests hold an object to store."""
        return self.takes_body and self.scope is Scope.WRITE


def _allowed(verbs: Mapping[bytes, Verb]) -> bytes:
    return b", ".join([*verbs, b"OPTIONS"])


@frozen(kw_only=True)
class Route:
    """A kind of path, and the act of each method.

    :param label: the pattern, as metrics and log show it.
    :param verbs: by method.
    :param uploads: the verbs below `/upload`; if empty, the path does not exist there.
    :param asks_upstreams: whether upstreams may be asked, so that rings of caches must be found.
    """

    pattern: re.Pattern[bytes]
    label: str
    verbs: Mapping[bytes, Verb]
    uploads: Mapping[bytes, Verb] = field(factory=dict)
    asks_upstreams: bool = False


def only_below_upload(route: Route) -> Route:
    """Return a route that accepts uploads only below `/upload`."""
    verbs = {method: verb for method, verb in route.verbs.items() if verb.scope is not Scope.WRITE}
    return evolve(route, verbs=verbs)


def reads(
    act: Callable[[NcpsRequest, re.Match[bytes]], object], scope: Scope | None = Scope.READ
) -> dict[bytes, Verb]:
    """Return the verbs of a page that is only read."""
    verb = Verb(act=act, scope=scope)
    return {b"GET": verb, b"HEAD": verb}


@implementer(IResource)
class Routes:
    """The root of the site, and the only resource in Twisted's sense.

    :param routes: the first one that matches a path answers it.
    :param via: our name in the Via header: a request with it has come back to us through an
        upstream.
    :ivar table: all routes.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self, routes: Sequence[Route], *, guard: RouteGuard | None = None, via: str = ""
    ) -> None:
        self._set(routes)
        self._guard = guard or OpenGuard()
        self._via = via
        self._has_told_of_loop = False

    def _set(self, routes: Iterable[Route]) -> None:
        self.table = tuple(routes)
        self._routes = tuple((route.pattern.fullmatch, route) for route in self.table)

    def replace(self, route: Route) -> None:
        """Replace the route with the same label, for the next requests."""
        self._set(route if route.label == other.label else other for other in self.table)

    def render(self, request: NcpsRequest) -> int:
        """See `IResource`."""
        if has_secret(request.uri):
            refuse_secret(request)
            return NOT_DONE_YET
        path = request.path
        if path[:1] != b"/":  # absolute-form, which a server must accept (RFC 9112, 3.2.2)
            path = _ORIGIN.sub(b"", path, count=1)
        if path.startswith(UPLOAD) and path[len(UPLOAD) :][:1] in {b"", b"/"}:
            request.is_upload = True
            path = path.removeprefix(UPLOAD) or b"/"
        for match_of, route in self._routes:
            match = match_of(path)
            if match is not None:
                self._enter(request, route, match)
                return NOT_DONE_YET
        if path == b"*" and request.method == b"OPTIONS":
            tell_methods(request)
        else:
            tell(request, 404, "no such path")
        return NOT_DONE_YET

    def _enter(self, request: NcpsRequest, route: Route, match: re.Match[bytes]) -> None:
        """Answer a request by its route, if path and method exist and the guard permits it."""
        verbs = route.uploads if request.is_upload else route.verbs
        if not verbs:
            tell(request, 404, "no such path")
            return
        request.route = f"/upload{route.label}" if request.is_upload else route.label
        verb = verbs.get(request.method)
        if verb is None and request.method == b"OPTIONS":
            tell_methods(request, _allowed(verbs))
        elif verb is None and request.method in route.uploads:
            refuse_method(request, _allowed(verbs), ELSEWHERE)
        elif verb is None:
            refuse_method(request, _allowed(verbs))
        elif request.body is not None and not verb.takes_body:
            tell(request, 413, "no body expected")
        elif verb.scope is None:
            self._go_on(request, route, verb, match)
        else:
            self._guard.admit(
                request,
                verb.scope,
                _allowed(verbs),
                lambda: self._go_on(request, route, verb, match),
            )

    def _go_on(
        self, request: NcpsRequest, route: Route, verb: Verb, match: re.Match[bytes]
    ) -> None:
        if verb.is_upload and request.body is None and not _has_length(request):
            request.is_endless = True
            tell(request, 411, "send the length of the body in Content-Length, or send chunks")
        elif verb.is_upload and request.requestHeaders.hasHeader(b"content-range"):
            tell(request, 400, "send the whole object, without Content-Range")  # RFC 9110, 14.5
        elif route.asks_upstreams:
            self._follow(request, lambda: verb.act(request, match))
        else:
            verb.act(request, match)

    def _follow(self, request: NcpsRequest, answer: Callable[[], object]) -> None:
        """Answer a request that has come through the caches in its Via header."""
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
            self._log.error("an upstream leads back to this cache: remove it from the upstreams")
        with trail.following(found):
            answer()

    def getChildWithDefault(self, name: bytes, request: NcpsRequest) -> Routes:
        """See `IResource`; never called, since a leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """See `IResource`."""
        raise TypeError("routes are fixed")


def _has_length(request: NcpsRequest) -> bool:
    """Whether a request announces the length of its body; else it has none (RFC 9112, 6.3)."""
    return bool(request.requestHeaders.hasHeader(b"content-length"))
