"""SqlReplicas: the roll of replicas in two small tables.

Each statement writes rows by their id, and a transaction locks the row of the key first. So
transactions of several replicas wait for each other instead of failing.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from attrs import asdict, fields

from ncps.database import clock
from ncps.database.pool import Database
from ncps.ports import KnownReplica, Replica, Replicas, Roll

KEY: Final = "public_key"
LONGEST: Final = 500
"""Characters of one fact that are read from a row; another program may have written it."""
KEPT_MS: Final = 3600 * 1000
"""Milliseconds that the row of a dead replica stays."""


class SqlReplicas(Replicas):
    """The roll of replicas in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def roll(self) -> Roll:
        return await self._database.read(_roll)

    async def claim(
        self, key: str, *, before: str | None, replica: Replica | None, gone: Collection[str] = ()
    ) -> bool | None:
        return await self._database.write(_claim, key, before, replica, tuple(gone))

    async def announce(self, replica: Replica) -> Roll:
        return await self._database.write(_announce, replica)

    async def withdraw(self, replica_id: str) -> None:
        await self._database.write(_remove, (replica_id,))


def _roll(txn: Any) -> Roll:
    rows = txn.execute("SELECT id, seen_at, told FROM replicas").fetchall()
    seen = [
        KnownReplica(replica, datetime.fromtimestamp(int(seen_at) / 1000, UTC))
        for row_id, seen_at, facts in rows
        if (replica := _read(str(row_id), facts)) is not None
    ]
    row = txn.execute("SELECT value FROM facts WHERE name = ?", (KEY,)).fetchone()
    now = clock.read(txn).replace(microsecond=0)
    return Roll(key=None if row is None else str(row[0]), now=now, seen=tuple(seen))


def _claim(
    txn: Any, key: str, before: str | None, replica: Replica | None, gone: Collection[str]
) -> bool | None:
    now = _milliseconds(txn)
    known = _locked_key(txn)
    if known is None:
        txn.execute(
            "INSERT INTO facts (name, value, changed_at) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET name = excluded.name",
            (KEY, key, now),
        )
        known = _locked_key(txn)
    if known != key:
        if known != before:
            return None
        txn.execute("UPDATE facts SET value = ?, changed_at = ? WHERE name = ?", (key, now, KEY))
    _remove(txn, gone)
    if replica is None:
        return True
    row = txn.execute("SELECT id FROM replicas WHERE id = ?", (replica.id,)).fetchone()
    _enter(txn, replica, now)
    return row is None


def _locked_key(txn: Any) -> str | None:
    row = txn.execute("SELECT value FROM facts WHERE name = ? FOR UPDATE", (KEY,)).fetchone()
    return None if row is None else str(row[0])


def _announce(txn: Any, replica: Replica) -> Roll:
    now = _milliseconds(txn)
    _enter(txn, replica, now)
    dead = txn.execute("SELECT id FROM replicas WHERE seen_at < ?", (now - KEPT_MS,)).fetchall()
    _remove(txn, [str(row_id) for (row_id,) in dead])
    return _roll(txn)


def _enter(txn: Any, replica: Replica, now: int) -> None:
    facts = {name: value for name, value in asdict(replica).items() if name != "id"}
    txn.execute(
        "INSERT INTO replicas (id, seen_at, told) VALUES (?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, told = excluded.told",
        (replica.id, now, json.dumps(facts)),
    )


def _remove(txn: Any, ids: Collection[str]) -> None:
    txn.executemany("DELETE FROM replicas WHERE id = ?", [(row_id,) for row_id in sorted(ids)])


def _milliseconds(txn: Any) -> int:
    return int(clock.read(txn).timestamp()) * 1000


def _read(row_id: str, facts: str) -> Replica | None:
    """Read the facts of a replica, of any version; None if they are invalid."""
    try:
        found = json.loads(facts)
        values = {
            field.name: _shown(found.get(field.name, field.default))
            for field in fields(Replica)
            if field.name not in ("id", "pid")
        }
        return Replica(id=row_id, pid=int(found.get("pid", 0)), **values)
    except (ValueError, TypeError, AttributeError):
        return None


def _shown(value: object) -> str:
    """Return a fact as printable text for a line of the log."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:LONGEST])
