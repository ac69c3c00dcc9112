"""Principal: the client of a request, and what it may do (P8)."""

from __future__ import annotations

import enum
import re

from attrs import frozen


class Scope(enum.Enum):
    """A kind of act; the value is its name for people and in the database."""

    READ = "read"  # GET and HEAD
    WRITE = "write"  # PUT
    DELETE = "delete"
    PIN = "pin"  # pin and unpin
    ADMIN = "admin"  # everything, tokens included


@frozen(kw_only=True)
class Principal:
    """One client, as its credentials name it.

    :param name: for the log; never a secret.
    :param paths: the base name of a store path (`<hash part>-<name>`) must match it whole; None
        for every path.
    :param source: name of the source of credentials that knows the client.
    """

    name: str
    scopes: frozenset[Scope]
    paths: re.Pattern[str] | None = None
    source: str = "token"

    def may(self, scope: Scope, path: str | None = None) -> bool:
        """Whether the principal may do this.

        :param path: base name of the store path that the act is about; None if it is not known yet,
            or about none: then the scope alone decides.
        """
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            return False
        return path is None or self.paths is None or self.paths.fullmatch(path) is not None


ANONYMOUS = Principal(name="", scopes=frozenset({Scope.READ}))
"""A client without credentials where reads are open."""

NOBODY = Principal(name="", scopes=frozenset())
"""A client without credentials where reads are closed."""
