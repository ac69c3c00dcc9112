"""Realisations over HTTP: read, uploaded and deleted."""

from __future__ import annotations

from ncps.auth.guard import permitted
from ncps.auth.principal import Scope
from ncps.cache.answers import Absent, Outcome, RealisationCache, RealisationUpload
from ncps.errors import Conflict, Malformed, NcpsError, NotFound, Refused, TooLarge
from ncps.nix.realisation import MAX_SIZE, RealisationKey
from ncps.observe.metrics import Metrics
from ncps.ranges import if_none_match
from ncps.web.answer import TEXT, send
from ncps.web.pages.narinfo import CACHE_CONTROL, outcome_of, result_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond

CONTENT_TYPE = b"application/json"

_TEXTS = {
    RealisationUpload.CREATED: "created",
    RealisationUpload.SAME: "already known",
    RealisationUpload.REPLACED: "replaced another one",
    RealisationUpload.LEFT: "another one is already known, and stays",
}


class RealisationPages:
    """The pages of `/realisations/<id>.doi` and `/build-trace-v2/<derivation>/<output>.doi`."""

    def __init__(self, cache: RealisationCache, metrics: Metrics) -> None:
        self._cache = cache
        self._served = metrics.realisations_served
        self._uploads = metrics.realisation_uploads

    def render(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Answer with a realisation; below `/upload`, without asking an upstream."""
        return respond(request, self._answer(request, key))

    async def _answer(self, request: NcpsRequest, key: RealisationKey) -> None:
        try:
            found = await self._cache.get(key, is_local=request.is_upload)
        except NcpsError as error:
            explain(request, outcome_of(error))
            self._served("absent" if isinstance(error, NotFound) else "error").inc()
            raise
        if request.principal.paths is not None:
            permitted(request.principal, Scope.READ, found.path)
        explain(request, found.outcome, found.upstream)
        self._served(result_of(found.outcome)).inc()
        request.describe_body(b"ETag", found.tag)
        request.setHeader(b"Cache-Control", CACHE_CONTROL)
        if if_none_match(request.getHeader(b"if-none-match"), found.tag):
            request.setResponseCode(304)
            return
        send(request, found.text, CONTENT_TYPE)

    def take(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Accept the realisation in the body of a request."""
        return respond(request, self._take(request, key))

    async def _take(self, request: NcpsRequest, key: RealisationKey) -> None:
        try:
            text = await request.incoming().read(MAX_SIZE)
            done = await self._cache.accept(key, text, request.principal)
        except NcpsError as error:
            self._uploads(_failure(error)).inc()
            raise
        self._uploads(done.value).inc()
        request.setResponseCode(201 if done is RealisationUpload.CREATED else 200)
        send(request, f"{_TEXTS[done]}\n".encode(), TEXT)

    def remove(self, request: NcpsRequest, key: RealisationKey) -> int:
        """Remove a realisation."""
        return respond(request, self._remove(request, key))

    async def _remove(self, request: NcpsRequest, key: RealisationKey) -> None:
        if not await self._cache.forget(key, request.principal):
            raise Absent(f"{key.path} is not kept here", outcome=Outcome.MISS)
        request.setResponseCode(204)


def _failure(error: NcpsError) -> str:
    if isinstance(error, Conflict):
        return "conflict"
    return "refused" if isinstance(error, Malformed | Refused | TooLarge) else "failed"
