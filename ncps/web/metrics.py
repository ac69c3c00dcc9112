"""`/metrics`, in whichever text format the scraper asks for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ncps.web.respond import respond, send
from ncps.web.site import NcpsRequest


class Scrape:
    """Renders a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def render(self, request: NcpsRequest) -> int:
        """See `routes.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        try:
            encode, content_type = choose_encoder(accept)
            body = encode(self._registry)
        except (TypeError, ValueError):  # the library's answer to a version that is no number
            encode, content_type = choose_encoder("")
            body = encode(self._registry)
        request.setHeader(b"Cache-Control", b"no-store")
        send(request, body, content_type.encode("ascii"))
