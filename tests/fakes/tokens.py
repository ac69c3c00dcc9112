"""MemoryTokens: a table of tokens in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from attrs import evolve

from ncps.errors import Conflict, NotFound, StorageFull
from ncps.ports import Token, Tokens, TokenTable
from ncps.ports.tokens import KEPT, MOST
from tests.fakes.failing import Failing


class MemoryTokens(Failing, Tokens):
    """See `ncps.ports.Tokens`.

    :ivar now: the time on its clock.
    :ivar asked: how often the version was asked for.
    :ivar reads: how often the whole table was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.rows: dict[str, Token] = {}
        self.number = 0
        self.asked = self.reads = 0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    async def version(self) -> int:
        self.asked += 1
        self._reading()
        return self.number

    async def table(self) -> TokenTable:
        self._reading()
        self.reads += 1
        return TokenTable(version=self.number, tokens=tuple(self.rows.values()), now=self.now)

    async def create(self, token: Token) -> None:
        self._writing()
        self.rows = {
            key: row
            for key, row in self.rows.items()
            if (end := row.ended_at()) is None or end >= self.now - KEPT
        }
        for row in self.rows.values():
            end = row.ended_at()
            if row.name == token.name and (end is None or end > self.now):
                raise Conflict(f"there is a token {token.name} already")
        if len(self.rows) >= MOST:
            raise StorageFull(f"there are {MOST} tokens already")
        self.rows[token.id] = token
        self.number += 1

    async def revoke(self, name: str) -> Token:
        self._writing()
        found = [row for row in self.rows.values() if name in (row.id, row.name)]
        if not found:
            raise NotFound(f"there is no token {name}")
        living = [row for row in found if row.revoked_at is None]
        if not living:
            return found[-1]
        token = evolve(living[-1], revoked_at=self.now)
        self.rows[token.id] = token
        self.number += 1
        return token

    async def touch(self, uses: Mapping[str, datetime]) -> None:
        self._writing()
        for key, at in uses.items():
            row = self.rows.get(key)
            if row is not None and (row.last_used_at is None or row.last_used_at < at):
                self.rows[key] = evolve(row, last_used_at=at)
