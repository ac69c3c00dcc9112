"""The page `/metrics`, in the text format that the scraper asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ncps.observe.snapshots import Collector
from ncps.web.answer import send
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond


class Scrape:
    """The page of a registry, or of the metrics that `gather` collects at each scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        gather: Callable[[], Awaitable[Collector]] | None = None,
    ) -> None:
        self._registry: Collector = registry
        self._gather = gather

    def render(self, request: NcpsRequest) -> int:
        """See `grammar.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        found = self._registry if self._gather is None else await self._gather()
        try:
            encode, content_type = choose_encoder(accept)
            body = encode(found)
        except (TypeError, ValueError):  # raised for a version that is not a number
            encode, content_type = choose_encoder("")
            body = encode(found)
        request.setHeader(b"Cache-Control", b"no-store")
        send(request, body, content_type.encode("ascii"))
