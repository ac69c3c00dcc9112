"""Narinfos over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ncps.auth.guard import permitted
from ncps.auth.principal import Scope
from ncps.cache.answers import Absent, Cache, Outcome, ServedNarInfo
from ncps.errors import NcpsError, NotFound
from ncps.observe.metrics import Metrics
from ncps.ranges import if_none_match
from ncps.web.answer import send
from ncps.web.fast.hot import HotNarInfo, HotNarInfos, rest_of_head
from ncps.web.fast.ledger import Access
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond

CONTENT_TYPE = b"text/x-nix-narinfo"
CACHE_CONTROL = b"public, max-age=60"
"""Nix ignores this and keeps narinfos for 30 days. It is for proxies in front of ncps, which may
answer bursts, but should see a new signature or a lost NAR within a minute."""


class NarInfoPages:
    """The pages of `/<32>.narinfo`.

    :param hot: holds the answers that may be repeated.
    """

    def __init__(self, cache: Cache, metrics: Metrics, hot: HotNarInfos) -> None:
        self._cache = cache
        self._served = metrics.narinfo_served
        self._hot = hot
        hot.repeated = self._repeated
        cache.watch(hot.drop)

    def render(self, request: NcpsRequest, digest: str) -> int:
        """See `grammar.NarInfoAnswers`."""
        request.digest = digest
        return respond(request, self._answer(request, digest))

    async def _answer(self, request: NcpsRequest, digest: str) -> None:
        try:
            leads_on = request.method == b"GET" and not request.is_upload
            leads_on = (
                leads_on and request.principal.paths is None
            )  # else it may not read references
            found = await self._cache.narinfo(digest, leads_on=leads_on)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("miss", "error", "database", "").inc()
            raise
        check_path(request, found.text)
        explain(request, found.outcome, found.upstream)
        self._served(result_of(found.outcome), "success", "database", found.upstream).inc()
        request.describe_body(b"ETag", found.tag)
        request.setHeader(b"Cache-Control", CACHE_CONTROL)
        if if_none_match(request.getHeader(b"if-none-match"), found.tag):
            request.setResponseCode(304)
            return
        send(request, found.text, CONTENT_TYPE)
        is_repeatable = request.method == b"GET" and not request.is_upload
        is_repeatable = is_repeatable and request.is_private == self._hot.are_private
        if found.may_repeat is not None and is_repeatable:
            self._hot.put(_answer_of(request, digest, found, found.may_repeat))

    def _repeated(self, accesses: Sequence[Access]) -> None:
        """Count answers that were sent without this page."""
        self._cache.repeated({access.digest for access in accesses})
        for upstream, count in Counter(access.upstream for access in accesses).items():
            self._served("hit", "success", "database", upstream).inc(count)


def check_path(request: NcpsRequest, text: bytes) -> None:
    """Raise Forbidden if the client may not read the path of a narinfo."""
    if request.principal.paths is not None:
        permitted(request.principal, Scope.READ, _base_name(text))


def _base_name(text: bytes) -> str:
    """Return the base name of the store path in a narinfo; empty if it names none."""
    line = next((line for line in text.split(b"\n") if line.startswith(b"StorePath: ")), b"")
    return line.rpartition(b"/")[2].decode("utf-8", "replace")


def _answer_of(
    request: NcpsRequest, digest: str, found: ServedNarInfo, may_repeat: Callable[[], bool]
) -> HotNarInfo:
    """Return the answer for all clients that ask for the same."""
    return HotNarInfo(
        digest=digest,
        path=f"/{digest}.narinfo",
        route=request.route,
        head=rest_of_head(request.responseHeaders),
        text=found.text,
        may_repeat=may_repeat,
        cache=found.outcome.value,
        upstream=found.upstream,
    )


def result_of(outcome: Outcome) -> str:
    """Return the `result` label of the metrics: whether the object was stored before."""
    return "hit" if outcome is Outcome.HIT else "miss"


def outcome_of(error: NcpsError) -> Outcome:
    """Return the outcome for an error."""
    if isinstance(error, Absent):
        return error.outcome
    is_unsure = isinstance(error, NotFound) and not error.is_certain
    return Outcome.UNSURE if is_unsure else Outcome.MISS
