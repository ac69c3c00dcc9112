"""RouteGuard: decides before anything is read or asked whether a client may do what it wants."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from ncps.auth.principal import Principal, Scope
from ncps.web.answer import refuse_method
from ncps.web.request import NcpsRequest


class RouteGuard(Protocol):
    """Lets requests pass."""

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """Call `go_on`, now or later, if the client may do this; else answer the request.

        Sets `request.principal`. A client that has gone meanwhile needs neither.

        :param allowed: the methods of the path, for an answer that the method is off.
        """


class OpenGuard:
    """Lets everybody do what the settings permit to all, and answers 405 to the rest."""

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
