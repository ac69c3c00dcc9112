"""The pages about the cache itself: its name, its key, and its readiness."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from ncps import __version__
from ncps.cache.answers import Cache
from ncps.nix.cacheinfo import CacheInfo
from ncps.web.answer import TEXT, send
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

JSON = b"application/json"
_ESCAPED = {sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
"""The characters that Go's encoder escapes although JSON does not demand it."""
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Surrogates, which UTF-8 cannot encode."""
CACHE_CONTROL = b"public, max-age=60"


def written(value: object) -> bytes:
    """Write JSON byte for byte as the Go program does, since scripts search it for texts."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = _NO_TEXT.sub(r"\\ufffd", text)
    for letter, escaped in _ESCAPED.items():
        text = text.replace(letter, escaped)
    return text.encode() + b"\n"


class Fixed:
    """A page that is the same for all clients.

    :param body: called for each request.
    """

    def __init__(
        self, body: Callable[[], bytes], content_type: bytes, cache_control: bytes
    ) -> None:
        self._body = body
        self._content_type = content_type
        self._cache_control = cache_control

    def render(self, request: NcpsRequest) -> int:
        """See `grammar.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        request.setHeader(b"Cache-Control", self._cache_control)
        send(request, self._body(), self._content_type)


def index(hostname: str, cache: Cache) -> Fixed:
    """Make the page `/`: name, key and version of this cache, as JSON."""

    def body() -> bytes:
        key = cache.public_key
        return written({"hostname": hostname, "publicKey": key, "version": __version__})

    return Fixed(body, JSON, CACHE_CONTROL)


def cache_info(info: CacheInfo) -> Fixed:
    """Make the page `/nix-cache-info`."""
    body = info.render()
    return Fixed(lambda: body, b"text/x-nix-cache-info", CACHE_CONTROL)


def public_key(cache: Cache) -> Fixed:
    """Make the page `/pubkey`: an entry for `trusted-public-keys`, without a newline."""

    def body() -> bytes:
        return cache.public_key.encode()

    return Fixed(body, TEXT, CACHE_CONTROL)


def heartbeat() -> Fixed:
    """Make the page `/healthz`, which shows only that the process answers."""
    return Fixed(lambda: b".", TEXT, b"no-store")


class ReadinessPage:
    """The page `/readyz`: whether this process is ready for requests, and if not, why.

    :param warnings: returns problems that an operator should fix, although the cache can serve.
    :param facts: returns further fields of the answer.
    """

    def __init__(
        self,
        cache: Cache,
        warnings: Callable[[], list[str]] = list,
        facts: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        self._cache = cache
        self._warnings = warnings
        self._facts = facts

    def render(self, request: NcpsRequest) -> int:
        """See `grammar.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        found = await self._cache.readiness()
        draining = request.site.is_leaving or request.site.is_draining
        parts = dict(found.parts, **({"service": "stopping"} if draining else {}))
        is_ready = found.is_ready and not draining
        request.setResponseCode(200 if is_ready else 503)
        request.setHeader(b"Cache-Control", b"no-store")
        facts: dict[str, object] = {"ready": is_ready, "parts": parts, **self._facts()}
        if found.ages:
            facts["ages"] = {part: round(age, 1) for part, age in found.ages.items()}
        if warnings := self._warnings():
            facts["warnings"] = warnings
        send(request, written(facts), JSON)
