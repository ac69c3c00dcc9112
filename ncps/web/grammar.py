"""The path grammar: it maps each path to its page. `api_routes` has the routes of our own API.

/                     name, key and version of this cache, as JSON
/nix-cache-info       /pubkey
/<32>.narinfo         <32>: hash part of a store path
/nar/<H>.nar[.<ext>]  <H>: 52 digits of nix32 or 64 of hexadecimal
/nar/<32>-<H>.nar...  /nar/<32>.nar...  as other servers name NARs; see `cache.nar.old_names`
/<32>.ls              the files of a store path
/log/<32>-<name>.drv  the log of a build
/debuginfo/<40>[.debug]     /buildid/<40>/debuginfo     <40>: a build ID
/realisations/sha256:<hex>!<output>.doi         of content-addressed derivations, as Nix
/build-trace-v2/<derivation>/<output>.doi      to 2.34 and since 2.35 names them
/upload/<the same>    what is stored here; PUT uploads it
/cluster/nar/<same>   an arriving NAR, for the other processes of this cache
/healthz /readyz /metrics
/pin/<32>.narinfo /pins  closures that are kept
/api/v1/remove        POST: remove paths
/api/v1/blocked /api/v1/blocked/<32>  paths that are never fetched again
/api/v1/query         POST: which of many paths are where
/api/v1/closure/<32>  the narinfos of a path and of its closure
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import unquote_to_bytes

from ncps.auth.principal import Scope
from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.narurl import NarKey, UnknownExtension
from ncps.nix.realisation import RealisationKey
from ncps.web.answer import tell
from ncps.web.request import NcpsRequest
from ncps.web.routes import Route, Verb, reads

NIX32 = re.escape(ALPHABET).encode()
DIGEST = rb"[%b]{32}" % NIX32
"""The hash part of a store path."""
_NARINFO = re.compile(rb"/(%b)\.narinfo" % DIGEST)
_FILE = rb"/nar/((?:[%b]{52}|[0-9a-f]{64})\.nar(?:\.[A-Za-z0-9]{0,16})?)" % NIX32
_NAR = re.compile(_FILE)
_CLUSTER_NAR = re.compile(b"/cluster" + _FILE)
_OLD_NAR = re.compile(
    rb"/nar/((%b)(?:[-_](?:[%b]{52}|[0-9a-f]{64}))?\.nar(?:\.[a-z0-9]{1,16})?)" % (DIGEST, NIX32)
)

_REALISATION = re.compile(rb"/(realisations/[0-9A-Za-z:!%+._?=-]{1,1000})")
_BUILD_TRACE = re.compile(
    rb"/(build-trace-v2/[0-9A-Za-z%+._?=-]{1,1000}/[0-9A-Za-z%+._?=-]{1,1000})"
)
"""The names in these patterns have characters that some releases of Nix escape."""


_LISTING = re.compile(rb"/(%b)\.ls" % DIGEST)
_LOG = re.compile(rb"/log/(%b-[A-Za-z0-9+._=%%-]{1,640})" % DIGEST)
_BUILD_ID = rb"[0-9a-f]{40}"
_LINK = re.compile(rb"/debuginfo/(%b)(?:\.debug)?" % _BUILD_ID)
_SYMBOLS = re.compile(rb"/buildid/(%b)/debuginfo" % _BUILD_ID)


class Page(Protocol):
    """The page of one fixed path."""

    def render(self, request: NcpsRequest) -> int:
        """Answer, now or later; see `respond.respond`."""


class NarInfoAnswers(Protocol):
    """Answers for narinfos."""

    def render(self, request: NcpsRequest, digest: str) -> int:
        """Answer for the store path with this hash part."""


class RemovalAnswers(Protocol):
    """Answers for removals."""

    def delete_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """Delete the narinfo of the store path with this hash part."""

    def delete_nar(self, request: NcpsRequest, key: NarKey) -> int:
        """Delete this NAR."""

    def remove(self, request: NcpsRequest) -> int:
        """Remove the paths that the body names."""

    def blocked(self, request: NcpsRequest) -> int:
        """List the blocked paths."""

    def unblock(self, request: NcpsRequest, digest: str) -> int:
        """Allow a store path to be fetched again."""


class NarAnswers(Protocol):
    """Answers for NARs."""

    def render(self, request: NcpsRequest, key: NarKey) -> int:
        """Answer with this NAR."""


class NarsOfClients(NarAnswers, Protocol):
    """Answers for NARs, also by the names that other servers use for them."""

    def render_old(self, request: NcpsRequest, digest: str, file_name: str) -> int:
        """Answer with the NAR of a store path, if `file_name` is its name; see `Cache.key_of`."""


class Uploading(Protocol):
    """Answers to uploads, and to clients that ask whether they need to upload."""

    def put_nar(self, request: NcpsRequest, key: NarKey) -> int:
        """Accept the file of a NAR."""

    def put_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """Accept the narinfo of the store path with this hash part."""

    def render_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """Answer with the narinfo of a stored path."""


class ExtraAnswers(Protocol):
    """Answers to reads and uploads of logs, listings and debug information."""

    def log(self, request: NcpsRequest, name: str) -> int:
        """Answer with the log of a derivation."""

    def put_log(self, request: NcpsRequest, name: str) -> int:
        """Accept the log of a derivation."""

    def listing(self, request: NcpsRequest, digest: str) -> int:
        """Answer with the listing of a store path."""

    def put_listing(self, request: NcpsRequest, digest: str) -> int:
        """Accept the listing of a store path."""

    def link(self, request: NcpsRequest, build_id: str) -> int:
        """Answer with the link of a build ID."""

    def put_link(self, request: NcpsRequest, build_id: str) -> int:
        """Accept the link of a build ID."""

    def symbols(self, request: NcpsRequest, build_id: str) -> int:
        """Answer with the symbols of a build ID."""


class RealisationAnswers(Protocol):
    """Answers for realisations."""

    def render(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Answer with a realisation."""

    def take(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Accept the realisation in the body of a request."""

    def remove(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Remove a realisation."""


def fixed(
    path: str, page: Page, scope: Scope | None = Scope.READ, *, is_upload: bool = False
) -> Route:
    """Return the route of one path that is only read.

    :param is_upload: whether the path exists below `/upload`, too.
    """
    verbs = reads(lambda request, _: page.render(request), scope)
    return Route(
        pattern=re.compile(re.escape(path.encode("ascii"))),
        label=path,
        verbs=verbs,
        uploads=verbs if is_upload else {},
    )


def narinfos(
    pages: NarInfoAnswers,
    removals: RemovalAnswers | None = None,
    uploads: Uploading | None = None,
    *,
    at_root: bool = False,
) -> Route:
    """Return the route of narinfos.

    :param at_root: whether they can be uploaded at the root, too.
    """
    verbs, below = reads(with_digest(pages.render)), {}
    if removals is not None:
        verbs[b"DELETE"] = Verb(act=with_digest(removals.delete_narinfo), scope=Scope.DELETE)
    if uploads is not None:
        put = Verb(act=with_digest(uploads.put_narinfo), scope=Scope.WRITE, takes_body=True)
        below = {**reads(with_digest(uploads.render_narinfo)), b"PUT": put}
        verbs |= {b"PUT": put} if at_root else {}
    return Route(
        pattern=_NARINFO,
        label="/{hash}.narinfo",
        verbs=verbs,
        uploads=below,
        asks_upstreams=True,
    )


def with_digest(
    page: Callable[[NcpsRequest, str], object],
) -> Callable[[NcpsRequest, re.Match[bytes]], None]:
    """Return an act that calls a page with the hash part in the path."""

    def act(request: NcpsRequest, match: re.Match[bytes]) -> None:
        page(request, match[1].decode("ascii"))

    return act


def nars(
    pages: NarAnswers,
    removals: RemovalAnswers | None = None,
    stored: NarAnswers | None = None,
    uploads: Uploading | None = None,
    *,
    at_root: bool = False,
) -> Route:
    """Return the route of NARs.

    :param stored: answers below `/upload`.
    :param at_root: as in `narinfos`.
    """
    verbs, below = reads(_with_nar(pages.render)), {}
    if removals is not None:
        verbs[b"DELETE"] = Verb(act=_with_nar(removals.delete_nar), scope=Scope.DELETE)
    if uploads is not None and stored is not None:
        put = Verb(act=_with_nar(uploads.put_nar), scope=Scope.WRITE, takes_body=True)
        below = {**reads(_with_nar(stored.render)), b"PUT": put}
        verbs |= {b"PUT": put} if at_root else {}
    return Route(pattern=_NAR, label="/nar/{file}", verbs=verbs, uploads=below, asks_upstreams=True)


def old_nars(pages: NarsOfClients) -> Route:
    """Return the route of NARs by the names that other servers use for them."""

    def act(request: NcpsRequest, match: re.Match[bytes]) -> None:
        # Such a name does not show the base name of the store path, and is easy to guess.
        if reads_all(request):
            pages.render_old(request, match[2].decode("ascii"), match[1].decode("ascii"))

    def refuse(request: NcpsRequest, match: re.Match[bytes]) -> None:
        tell(request, 404, "delete a NAR by the URL in its narinfo")

    return Route(
        pattern=_OLD_NAR,
        label="/nar/{file}",
        verbs={**reads(act), b"DELETE": Verb(act=refuse, scope=Scope.DELETE)},
        asks_upstreams=True,
    )


def reads_all(request: NcpsRequest) -> bool:
    """Whether the client may read all store paths; if not, answer the request."""
    if request.principal.paths is None:
        return True
    tell(request, 403, "a token for some store paths reads narinfos, and the NARs that they name")
    return False


def cluster_nars(pages: NarAnswers) -> Route:
    """Return the route of NARs for other processes of this cache, which send tickets."""
    return Route(
        pattern=_CLUSTER_NAR,
        label="/cluster/nar/{file}",
        verbs=reads(_with_nar(pages.render), None),
        asks_upstreams=True,
    )


def extras(pages: ExtraAnswers) -> Iterator[Route]:
    """Return the routes of logs, listings and debug information."""

    def named(act: Callable[[NcpsRequest, str], int]) -> Callable[..., None]:
        def call(request: NcpsRequest, match: re.Match[bytes]) -> None:
            act(request, match[1].decode("ascii"))

        return call

    def named_for_all(act: Callable[[NcpsRequest, str], int]) -> Callable[..., None]:
        def call(request: NcpsRequest, match: re.Match[bytes]) -> None:
            # Every copy of a program holds its build ID, which does not show the store path.
            if reads_all(request):
                act(request, match[1].decode("ascii"))

        return call

    def log_named(act: Callable[[NcpsRequest, str], int]) -> Callable[..., None]:
        def call(request: NcpsRequest, match: re.Match[bytes]) -> None:
            act(request, _log_name(request, match[1]))

        return call

    for pattern, label, read, put in (
        (_LISTING, "/{hash}.ls", named(pages.listing), named(pages.put_listing)),
        (_LOG, "/log/{drv}", log_named(pages.log), log_named(pages.put_log)),
        (_LINK, "/debuginfo/{id}", named_for_all(pages.link), named(pages.put_link)),
    ):
        verbs = {**reads(read), b"PUT": Verb(act=put, scope=Scope.WRITE, takes_body=True)}
        yield Route(
            pattern=pattern,
            label=label,
            verbs=verbs,
            uploads=verbs,
            asks_upstreams=True,
        )
    yield Route(
        pattern=_SYMBOLS,
        label="/buildid/{id}/debuginfo",
        verbs=reads(named_for_all(pages.symbols)),
        asks_upstreams=True,
    )


def _log_name(request: NcpsRequest, name: bytes) -> str:
    """Return the name of a log; the page checks it.

    A name may hold a question mark. Nix does not escape it in the URL, so that the rest of the name
    looks like a query.
    """
    _, mark, query = request.uri.partition(b"?")
    text = (name + mark + query).decode("ascii", "replace")
    for quoted, plain in (("%2B", "+"), ("%3D", "="), ("%3F", "?")):
        text = text.replace(quoted, plain).replace(quoted.lower(), plain)
    return text


def realisations(pages: RealisationAnswers) -> tuple[Route, Route]:
    """Return the routes of realisations, one for each family of names."""
    taking = Verb(act=_with_key(pages.take), scope=Scope.WRITE, takes_body=True)
    below_upload = {**reads(_with_key(pages.render)), b"PUT": taking}
    removing = Verb(act=_with_key(pages.remove), scope=Scope.DELETE)
    verbs = {**below_upload, b"DELETE": removing}

    old = Route(
        pattern=_REALISATION,
        label="/realisations/{id}",
        verbs=verbs,
        uploads=below_upload,
        asks_upstreams=True,
    )
    new = Route(
        pattern=_BUILD_TRACE,
        label="/build-trace-v2/{drv}/{output}",
        verbs=verbs,
        uploads=below_upload,
        asks_upstreams=True,
    )
    return old, new


def _with_key(
    page: Callable[[NcpsRequest, RealisationKey], object],
) -> Callable[[NcpsRequest, re.Match[bytes]], None]:
    """Return an act that calls a page with the key in the path."""

    def act(request: NcpsRequest, match: re.Match[bytes]) -> None:
        try:
            key = RealisationKey.parse(unquote_to_bytes(match[1]).decode("ascii"))
        except (Malformed, UnicodeDecodeError):
            tell(request, 404, "no such path")
        else:
            page(request, key)

    return act


def _with_nar(
    page: Callable[[NcpsRequest, NarKey], object],
) -> Callable[[NcpsRequest, re.Match[bytes]], None]:
    """Return an act that calls a page with the name of the NAR in the path."""

    def act(request: NcpsRequest, match: re.Match[bytes]) -> None:
        try:
            key = NarKey.parse(match[1].decode("ascii"))
        except UnknownExtension:
            tell(request, 400, "unknown compression extension")
        except Malformed:
            tell(request, 404, "no such path")
        else:
            page(request, key)

    return act
