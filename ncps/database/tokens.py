"""SqlTokens: the tokens of clients in a table, and the number of its last change in a fact.

Each change locks the row of that fact first. So two clients that make tokens with one name at the
same moment wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ncps.database import clock
from ncps.database.pool import Database
from ncps.errors import Conflict, NotFound, StorageFull
from ncps.ports import Token, Tokens, TokenTable
from ncps.ports.tokens import KEPT, MOST

FACT: Final = "tokens"

_ALL: Final = (
    "SELECT id, name, digest, scopes, path, created_at, expires_at, revoked_at, last_used_at"
    " FROM tokens"
)


class SqlTokens(Tokens):
    """The tokens in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self) -> int:
        return await self._database.point(_version)

    async def table(self) -> TokenTable:
        return await self._database.read(_table)

    async def create(self, token: Token) -> None:
        await self._database.write(_create, token)

    async def revoke(self, name: str) -> Token:
        return await self._database.write(_revoke, name)

    async def touch(self, uses: Mapping[str, datetime]) -> None:
        await self._database.write(_touch, dict(uses))


def _version(txn: Any) -> int:
    row = txn.execute("SELECT value FROM facts WHERE name = ?", (FACT,)).fetchone()
    return 0 if row is None else int(row[0])


def _table(txn: Any) -> TokenTable:
    rows = txn.execute(_ALL + " ORDER BY created_at, id").fetchall()
    now = clock.read(txn).replace(microsecond=0)
    return TokenTable(version=_version(txn), tokens=tuple(map(_token, rows)), now=now)


def _token(row: Any) -> Token:
    number, name, digest, scopes, path, created, expires, revoked, used = row
    return Token(
        id=str(number),
        name=str(name),
        digest=str(digest),
        scopes=frozenset(str(scopes).split(",")) - {""},
        path=str(path),
        created_at=_time(created),
        expires_at=None if expires is None else _time(expires),
        revoked_at=None if revoked is None else _time(revoked),
        last_used_at=None if used is None else _time(used),
    )


def _lock(txn: Any) -> int:
    """Lock the fact, and insert it if it is missing; return its number."""
    now = _milliseconds(clock.read(txn))
    txn.execute(
        "INSERT INTO facts (name, value, changed_at) VALUES (?, '0', ?)"
        " ON CONFLICT (name) DO UPDATE SET name = excluded.name",
        (FACT, now),
    )
    row = txn.execute("SELECT value FROM facts WHERE name = ? FOR UPDATE", (FACT,)).fetchone()
    return int(row[0])


def _changed(txn: Any, before: int, now: datetime) -> None:
    txn.execute(
        "UPDATE facts SET value = ?, changed_at = ? WHERE name = ?",
        (str(before + 1), _milliseconds(now), FACT),
    )


def _create(txn: Any, token: Token) -> None:
    before = _lock(txn)
    now = clock.read(txn)
    old = _milliseconds(now - KEPT)
    txn.execute("DELETE FROM tokens WHERE expires_at < ? OR revoked_at < ?", (old, old))
    rows = txn.execute(_ALL).fetchall()
    others = [other for other in map(_token, rows) if other.digest != token.digest]
    for other in others:
        end = other.ended_at()
        if other.name == token.name and (end is None or end > now):
            raise Conflict(f"there is a token {token.name} already")
    if len(others) >= MOST:
        raise StorageFull(f"there are {MOST} tokens already")
    txn.execute("DELETE FROM tokens WHERE id = ?", (token.id,))  # of an earlier run of this call
    txn.execute(
        "INSERT INTO tokens (id, name, digest, scopes, path, created_at, expires_at, revoked_at,"
        " last_used_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.id,
            token.name,
            token.digest,
            ",".join(sorted(token.scopes)),
            token.path,
            _milliseconds(token.created_at),
            None if token.expires_at is None else _milliseconds(token.expires_at),
            None if token.revoked_at is None else _milliseconds(token.revoked_at),
            None if token.last_used_at is None else _milliseconds(token.last_used_at),
        ),
    )
    _changed(txn, before, now)


def _revoke(txn: Any, name: str) -> Token:
    before = _lock(txn)
    now = clock.read(txn).replace(microsecond=0)
    row = txn.execute(
        _ALL + " WHERE id = ? OR name = ? ORDER BY revoked_at IS NOT NULL, created_at DESC LIMIT 1",
        (name, name),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no token {name}")
    token = _token(row)
    if token.revoked_at is not None:
        return token
    txn.execute("UPDATE tokens SET revoked_at = ? WHERE id = ?", (_milliseconds(now), token.id))
    _changed(txn, before, now)
    return _token((*row[:7], _milliseconds(now), row[8]))


def _touch(txn: Any, uses: Mapping[str, datetime]) -> None:
    txn.executemany(
        "UPDATE tokens SET last_used_at = ?"
        " WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)",
        [(_milliseconds(at), key, _milliseconds(at)) for key, at in sorted(uses.items())],
    )


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _time(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
