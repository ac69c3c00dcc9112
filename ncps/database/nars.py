"""NAR rows: plain functions on a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ncps.database.rows import NAR_COLUMNS, columns_of, milliseconds, nar_of
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

_FACTS = ("compression", "file_size", "file_hash", "nar_size", "nar_hash")
_ORIGIN = ("upstream", "origin_url")


def find(txn: Any, key: NarKey) -> tuple[int, NarRecord] | None:
    """Return the id and the record of a NAR."""
    row = txn.execute(
        f"SELECT {NAR_COLUMNS}, n.id FROM nar_files n WHERE n.name = ? AND n.extension = ?",  # noqa: S608 - columns
        (key.name, key.extension),
    ).fetchone()
    return None if row is None else (row[-1], nar_of(row))


def insert(txn: Any, nar: NarRecord) -> int:
    """Add a row; return its id."""
    columns = {"name": nar.key.name, "extension": nar.key.extension, **columns_of(nar)}
    txn.execute(
        f"INSERT INTO nar_files ({', '.join(columns)})"  # noqa: S608 - our own names
        f" VALUES ({', '.join('?' * len(columns))})",
        tuple(columns.values()),
    )
    found = find(txn, nar.key)
    assert found is not None
    return found[0]


def update(txn: Any, row_id: int, columns: Mapping[str, object]) -> None:
    """Set columns of a row."""
    if columns:
        txn.execute(
            f"UPDATE nar_files SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",  # noqa: S608
            (*columns.values(), row_id),
        )


def announce(txn: Any, nar: NarRecord) -> int:
    """See to a row for a NAR that a narinfo names; return its id. See `Catalog.add_narinfo`."""
    found = find(txn, nar.key)
    if found is None:
        return insert(txn, nar)
    row_id, there = found
    told = columns_of(nar)
    if there.is_stored:
        kept = columns_of(there)
        columns = {name: told[name] for name in _FACTS if kept[name] in {None, ""}}
        if not (there.upstream or there.origin_url):
            columns |= {name: told[name] for name in _ORIGIN}
    else:
        columns = {name: told[name] for name in _FACTS + _ORIGIN}
    update(txn, row_id, columns)
    return row_id


def mark_stored(txn: Any, nar: NarRecord) -> int:
    """Insert or replace a row, except that its last use is not forgotten; return its id."""
    found = find(txn, nar.key)
    if found is None:
        return insert(txn, nar)
    columns = columns_of(nar)
    if nar.last_used_at is None:
        del columns["last_used_at"]
    update(txn, found[0], columns)
    return found[0]


def mark_missing(txn: Any, key: NarKey) -> None:
    """Note that the bytes are gone."""
    found = find(txn, key)
    if found is not None:
        update(txn, found[0], {"stored_at": None, "stored_size": None, "verified_at": None})


def mark_verified(txn: Any, key: NarKey, at: datetime) -> None:
    """Note that the bytes have the right NarHash."""
    found = find(txn, key)
    if found is not None and found[1].is_stored:
        update(txn, found[0], {"verified_at": milliseconds(at)})


def unverified(txn: Any, limit: int, compressions: Sequence[str]) -> list[NarRecord]:
    """Return stored NARs never checked against their NarHash, oldest first."""
    if not compressions:  # an empty list is no SQL for some engines
        return []
    rows = txn.execute(
        f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.verified_at IS NULL"  # noqa: S608 - columns
        " AND n.stored_at IS NOT NULL AND n.nar_hash IS NOT NULL"
        f" AND n.encoding IN ({', '.join('?' * len(compressions))})"
        " ORDER BY n.stored_at, n.id LIMIT ?",
        (*compressions, limit),
    ).fetchall()
    return [nar_of(row) for row in rows]


def forget(txn: Any, key: NarKey) -> bool:
    """Delete a row and, through the foreign key, its narinfos; False if there is none."""
    found = find(txn, key)
    if found is None:
        return False
    txn.execute("DELETE FROM nar_files WHERE id = ?", (found[0],))
    return True


def touch(txn: Any, uses: Mapping[NarKey, datetime]) -> None:
    """Set times of last use, never backwards."""
    txn.executemany(
        "UPDATE nar_files SET last_used_at = ? WHERE name = ? AND extension = ?"
        " AND COALESCE(last_used_at, 0) < ?",
        [(milliseconds(at), key.name, key.extension, milliseconds(at)) for key, at in uses.items()],
    )


def count_stored(txn: Any) -> tuple[int, int]:
    """Return how many NARs are stored and their bytes."""
    count, size = txn.execute(
        "SELECT COUNT(*), COALESCE(SUM(stored_size), 0) FROM nar_files WHERE stored_at IS NOT NULL"
    ).fetchone()
    return int(count), int(size)
