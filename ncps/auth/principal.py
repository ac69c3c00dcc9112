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
    ADMIN = "admin"  # all acts, also those for tokens


@frozen(kw_only=True)
class Principal:
    """One client, as its credentials name it.

    :param name: its name in logs; never a secret.
    :param paths: must match the whole base name of a store path (`<hash part>-<name>`); None
        permits each path.
    :param source: name of the source of credentials that knows the client.
    """

    name: str
    scopes: frozenset[Scope]
    paths: re.Pattern[str] | None = None
    source: str = "token"

    def may(self, scope: Scope, path: str | None = None) -> bool:
        """Return whether the principal may do this.

        :param path: base name of the store path of the act; None if it has none or is unknown yet.
            Then the scope alone decides.
        """
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            return False
        return path is None or self.paths is None or self.paths.fullmatch(path) is not None


ANONYMOUS = Principal(name="", scopes=frozenset({Scope.READ}))
"""A client without credentials, if reads are open."""

NOBODY = Principal(name="", scopes=frozenset())
"""A client without credentials, if reads are closed."""
