"""Tokens: the facts of tokens that were made for clients; the tokens themselves are not stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

from attrs import field, frozen

MOST: Final = 10_000
"""Tokens that a database may hold."""

KEPT: Final = timedelta(days=90)
"""How long an expired or revoked token stays in the list; `create` removes older ones."""


@frozen(kw_only=True)
class Token:
    """One token.

    :param id: short and random; people see it.
    :param digest: SHA-256 of the token, in hexadecimal.
    :param scopes: names of scopes.
    :param path: pattern of base names of store paths; the token is valid for these. Empty: for all.
    :param expires_at: None for never.
    """

    id: str
    name: str
    digest: str = field(repr=False)
    scopes: frozenset[str]
    path: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def ended_at(self) -> datetime | None:
        """Return when the token ended or will end; None if it will not."""
        ends = [at for at in (self.expires_at, self.revoked_at) if at is not None]
        return min(ends, default=None)


@frozen(kw_only=True)
class TokenTable:
    """All tokens at one moment.

    :param version: grows with each change; 0: no token was made yet.
    :param now: the time by the clock of the database, to the second.
    """

    version: int
    tokens: tuple[Token, ...] = ()
    now: datetime


class Tokens(Protocol):
    """The tokens of a cache; each method is one transaction.

    Methods raise Unavailable if the database is away, StorageFull if it has no room.
    """

    async def version(self) -> int:
        """Return the version of the table; cheap enough for a call every few seconds."""

    async def table(self) -> TokenTable:
        """Return all tokens, also those that have ended."""

    async def create(self, token: Token) -> None:
        """Enter a token, and remove those that ended more than `KEPT` ago.

        Raises Conflict if a token of this name has not ended, StorageFull if there are `MOST`.
        """

    async def revoke(self, name: str) -> Token:
        """End the token with this name or id; return it afterwards.

        A token that was revoked before stays as it is. Raises NotFound if there is none.
        """

    async def touch(self, uses: Mapping[str, datetime]) -> None:
        """Set times of last use, by id; ignore earlier times. The version does not change."""
