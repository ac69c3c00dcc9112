"""narinfos over HTTP."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from ncps.cache.verbs import Absent, Cache, Outcome
from ncps.errors import NcpsError
from ncps.metrics import Metrics
from ncps.ranges import if_none_match
from ncps.web.respond import explain, respond, send
from ncps.web.site import NcpsRequest

CONTENT_TYPE = b"text/x-nix-narinfo"
CACHE_CONTROL = b"public, max-age=60"
"""Nix ignores it and keeps narinfos for 30 days. It is for proxies in front of us, which may take
a burst off us, but should see a new signature or a lost NAR within a minute."""


class NarInfoPages:
    """Answers `/<32>.narinfo`."""

    def __init__(self, cache: Cache, metrics: Metrics) -> None:
        self._cache = cache
        self._served = metrics.narinfo_served

    def render(self, request: NcpsRequest, digest: str) -> int:
        """See `routes.NarInfos`."""
        request.digest = digest
        return respond(request, self._answer(request, digest))

    async def _answer(self, request: NcpsRequest, digest: str) -> None:
        try:
            found = await self._cache.narinfo(digest)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("miss", "error", "database", "").inc()
            raise
        explain(request, found.outcome, found.upstream, found.timings)
        self._served(result_of(found.outcome), "success", "database", found.upstream).inc()
        etag = _etag(found.text)
        request.setHeader(b"ETag", etag)
        request.setHeader(b"Cache-Control", CACHE_CONTROL)
        if if_none_match(request.getHeader(b"if-none-match"), etag):
            request.setResponseCode(304)
        else:
            send(request, found.text, CONTENT_TYPE)


@lru_cache(maxsize=4096)
def _etag(text: bytes) -> bytes:
    """Make a strong entity tag; texts that are asked for again are the same objects, mostly."""
    return b'"%b"' % blake2b(text, digest_size=16).hexdigest().encode()


def result_of(outcome: Outcome) -> str:
    """The `result` label of the metrics: whether it was here already."""
    return "hit" if outcome in {Outcome.HIT, Outcome.STALE} else "miss"


def outcome_of(error: NcpsError) -> Outcome:
    """How a failure is known."""
    return error.outcome if isinstance(error, Absent) else Outcome.MISS
