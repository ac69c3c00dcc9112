"""RouteGuard: decides whether a client may do what it asks for, before a page does anything."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from ncps.auth.principal import Principal, Scope
from ncps.web.answer import refuse_method
from ncps.web.request import NcpsRequest


class RouteGuard(Protocol):
    """The guard of all routes."""

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """Call `go_on`, now or later, if the client may do this; else answer the request.

        Sets `request.principal`. If the client has gone meanwhile, do neither.

        :param allowed: the methods of the path, for the answer that a method is off.
        """


class OpenGuard:
    """A guard that permits all clients the same scopes, and answers 405 for other ones."""

    def __init__(self, scopes: Collection[Scope] = (Scope.READ,)) -> None:
        self._anybody = Principal(name="", scopes=frozenset(scopes))

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """See `RouteGuard`."""
        request.principal = self._anybody
        if self._anybody.may(scope):
            go_on()
        else:
            refuse_method(request, allowed)
