"""The pages about the cache itself: what it is, its key, and whether it is well."""

from __future__ import annotations

import json

from ncps import __version__
from ncps.cache.answers import Cache
from ncps.nix.cacheinfo import CacheInfo
from ncps.web.answer import TEXT, send
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

JSON = b"application/json"
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
CACHE_CONTROL = b"public, max-age=60"


def written(value: object) -> bytes:
    """Write JSON byte for byte as the Go program does: scripts search it for texts."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for letter, escaped in _ESCAPED.items():
        text = text.replace(letter, escaped)
    return text.encode("utf-8", "replace") + b"\n"


class Fixed:
    """A page that never changes."""

    def __init__(self, body: bytes, content_type: bytes, cache_control: bytes) -> None:
        self._body = body
        self._content_type = content_type
        self._cache_control = cache_control

    def render(self, request: NcpsRequest) -> int:
        """See `routes.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        request.setHeader(b"Cache-Control", self._cache_control)
        send(request, self._body, self._content_type)


def index(hostname: str, public_key: str) -> Fixed:
    """`/`: who this is."""
    facts = {"hostname": hostname, "publicKey": public_key, "version": __version__}
    return Fixed(written(facts), JSON, CACHE_CONTROL)


def cache_info(info: CacheInfo) -> Fixed:
    """`/nix-cache-info`."""
    return Fixed(info.render(), b"text/x-nix-cache-info", CACHE_CONTROL)


def public_key(text: str) -> Fixed:
    """`/pubkey`: an entry for `trusted-public-keys`, without newline as it always was."""
    return Fixed(text.encode(), TEXT, CACHE_CONTROL)


def heartbeat() -> Fixed:
    """`/healthz`: that the process answers, and nothing else."""
    return Fixed(b".", TEXT, b"no-store")


class ReadinessPage:
    """`/readyz`: whether requests should be sent here, and if not, why."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def render(self, request: NcpsRequest) -> int:
        """See `routes.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        found = await self._cache.readiness()
        draining = request.site.is_leaving or request.site.is_draining
        parts = dict(found.parts, **({"service": "stopping"} if draining else {}))
        is_ready = found.is_ready and not draining
        request.setResponseCode(200 if is_ready else 503)
        request.setHeader(b"Cache-Control", b"no-store")
        facts: dict[str, object] = {"ready": is_ready, "parts": parts}
        if found.ages:
            facts["ages"] = {part: round(age, 1) for part, age in found.ages.items()}
        send(request, written(facts), JSON)
