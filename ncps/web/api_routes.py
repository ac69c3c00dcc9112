"""Routes of our own API: pins, removals, and queries about many paths; `grammar` lists them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from ncps.auth.principal import Scope
from ncps.web.grammar import (
    DIGEST,
    NarInfoAnswers,
    Page,
    RemovalAnswers,
    reads_all,
    with_digest,
)
from ncps.web.request import NcpsRequest
from ncps.web.routes import Route, Verb, reads

_PIN = re.compile(rb"/pin/(%b)\.narinfo" % DIGEST)
_BLOCKED = re.compile(b"/api/v1/blocked/(%b)" % DIGEST)
_CLOSURE = re.compile(b"/api/v1/closure/(%b)" % DIGEST)


class PinAnswers(Protocol):
    """Answers for pins."""

    def pin(self, request: NcpsRequest, digest: str) -> int:
        """Pin the closure of the store path with this hash part."""

    def unpin(self, request: NcpsRequest, digest: str) -> int:
        """Remove the pin of the store path with this hash part."""

    def list(self, request: NcpsRequest) -> int:
        """List the pins."""


def pins(pages: PinAnswers) -> tuple[Route, Route]:
    """Return the routes of pins."""
    pin = Verb(act=with_digest(pages.pin), scope=Scope.PIN, takes_body=True)
    unpin = Verb(act=with_digest(pages.unpin), scope=Scope.PIN)
    return (
        Route(
            pattern=_PIN,
            label="/pin/{hash}.narinfo",
            verbs={b"POST": pin, b"DELETE": unpin},
            asks_upstreams=True,
        ),
        Route(
            pattern=re.compile(b"/pins"),
            label="/pins",
            verbs=reads(_for_all(pages.list)),
        ),
    )


def removals(pages: RemovalAnswers) -> tuple[Route, Route, Route]:
    """Return the routes of removals, beside those of narinfos and NARs."""
    remove = Verb(act=lambda request, _: pages.remove(request), scope=Scope.DELETE, takes_body=True)
    unblock = Verb(act=with_digest(pages.unblock), scope=Scope.DELETE)
    return (
        Route(
            pattern=re.compile(b"/api/v1/remove"),
            label="/api/v1/remove",
            verbs={b"POST": remove},
        ),
        Route(
            pattern=re.compile(b"/api/v1/blocked"),
            label="/api/v1/blocked",
            verbs=reads(_for_all(pages.blocked), Scope.DELETE),
        ),
        Route(pattern=_BLOCKED, label="/api/v1/blocked/{hash}", verbs={b"DELETE": unblock}),
    )


def _for_all(
    page: Callable[[NcpsRequest], int],
) -> Callable[[NcpsRequest, re.Match[bytes]], None]:
    """Return an act that refuses clients that may not read all paths."""

    def act(request: NcpsRequest, _: re.Match[bytes]) -> None:
        if reads_all(request):
            page(request)

    return act


def query(page: Page) -> Route:
    """Return the route of queries about many paths."""
    verb = Verb(act=_for_all(page.render), takes_body=True)
    return Route(
        pattern=re.compile(b"/api/v1/query"),
        label="/api/v1/query",
        verbs={b"POST": verb},
        asks_upstreams=True,
    )


def closures(pages: NarInfoAnswers) -> Route:
    """Return the route of closures."""

    def act(request: NcpsRequest, match: re.Match[bytes]) -> None:
        if reads_all(request):
            pages.render(request, match[1].decode("ascii"))

    return Route(
        pattern=_CLOSURE, label="/api/v1/closure/{hash}", verbs=reads(act), asks_upstreams=True
    )
