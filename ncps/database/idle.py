"""Idle NARs: which were not wanted for long, and their rows marked or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from ncps.database import accounts
from ncps.database.accounts import NOTHING, Change
from ncps.database.rows import NAR_COLUMNS, milliseconds, moment, nar_of
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, Forgotten, IdleNar

# The engines have no name in common for the largest of several values. Rows are sorted by what
# little is needed for that, and read whole once it is known which; grouping keeps SQLite from
# looking for the uses of narinfos again in each comparison.
_FIND: Final = f"""
SELECT {NAR_COLUMNS}, t.used_at FROM (
    SELECT m.id, CASE
        WHEN m.nar_used >= m.narinfo_used AND m.nar_used >= m.stored_at THEN m.nar_used
        WHEN m.narinfo_used >= m.stored_at THEN m.narinfo_used
        ELSE m.stored_at END AS used_at
    FROM (
        SELECT k.id, k.stored_at, COALESCE(k.last_used_at, 0) AS nar_used,
            COALESCE(MAX(i.last_used_at), 0) AS narinfo_used
        FROM nar_files k LEFT JOIN narinfos i ON i.nar_file_id = k.id
        WHERE k.stored_at < ? AND (k.last_used_at IS NULL OR k.last_used_at < ?)
        GROUP BY k.id, k.stored_at, k.last_used_at
    ) m
    WHERE m.nar_used < ? AND m.narinfo_used < ?
    ORDER BY used_at, m.id LIMIT ?
) t JOIN nar_files n ON n.id = t.id ORDER BY t.used_at, t.id
"""  # noqa: S608 - columns

_EVICT: Final = """
UPDATE nar_files SET stored_at = NULL, stored_size = NULL, stored_tag = '', verified_at = NULL,
    last_used_at = COALESCE(last_used_at, ?)
WHERE name = ? AND extension = ? AND stored_at = ? AND stored_size = ?
AND COALESCE(last_used_at, 0) <= ? AND NOT EXISTS (
    SELECT 1 FROM narinfos i WHERE i.nar_file_id = nar_files.id AND i.last_used_at > ?
)
"""

_UNUSED: Final = """
SELECT n.id, n.name, n.extension, COALESCE(n.last_used_at, -1) FROM nar_files n
WHERE n.stored_at IS NULL AND COALESCE(n.last_used_at, 0) < ? AND NOT EXISTS (
    SELECT 1 FROM narinfos i
    WHERE i.nar_file_id = n.id AND (i.last_used_at >= ? OR i.fetched_at >= ?)
)
ORDER BY n.id LIMIT ?
"""


def find(txn: Any, before: datetime, limit: int) -> list[IdleNar]:
    """Return stored NARs that were last wanted before then, the longest unwanted first."""
    then = milliseconds(before)
    rows = txn.execute(_FIND, (then, then, then, then, limit)).fetchall()
    return [IdleNar(nar_of(row), moment(int(row[-1]))) for row in rows]


def evict(txn: Any, victims: Sequence[IdleNar]) -> tuple[list[EvictedNar], Change]:
    """Mark as missing what is still as `find` saw it; see `Inventory.evict`."""
    evicted, change = [], NOTHING
    # In the order in which everybody locks several NARs.
    for victim in sorted(victims, key=lambda idle: (idle.nar.key.name, idle.nar.key.extension)):
        nar, used_at = victim.nar, milliseconds(victim.used_at)
        where = nar.key.name, nar.key.extension, milliseconds(nar.stored_at), nar.stored_size
        if txn.execute(_EVICT, (used_at, *where, used_at, used_at)).rowcount == 1:
            digests = txn.execute(
                "SELECT i.hash FROM nar_files n JOIN narinfos i ON i.nar_file_id = n.id"
                " WHERE n.name = ? AND n.extension = ? ORDER BY i.hash",
                (nar.key.name, nar.key.extension),
            ).fetchall()
            evicted.append(EvictedNar(nar, tuple(digest for (digest,) in digests)))
            change -= accounts.of_size(nar.stored_size)
    return evicted, change


def forget(txn: Any, before: datetime, now: datetime, limit: int) -> Forgotten:
    """Delete rows of NARs that are not stored and not wanted; see `Inventory.forget_unused`."""
    then = milliseconds(before)
    rows = txn.execute(_UNUSED, (then, then, then, limit)).fetchall()
    forgotten = []
    for row_id, name, extension, used_at in rows:
        # Once more where the row is locked: meanwhile somebody may have stored or used it.
        if used_at < 0 and not _has_narinfos(txn, row_id):
            txn.execute(
                "UPDATE nar_files SET last_used_at = ? WHERE id = ? AND last_used_at IS NULL",
                (milliseconds(now), row_id),
            )
        elif (
            txn.execute(
                "DELETE FROM nar_files WHERE id = ? AND stored_at IS NULL"
                " AND COALESCE(last_used_at, 0) < ? AND NOT EXISTS (SELECT 1 FROM narinfos i WHERE"
                " i.nar_file_id = nar_files.id AND (i.last_used_at >= ? OR i.fetched_at >= ?))",
                (row_id, then, then, then),
            ).rowcount
            == 1
        ):
            forgotten.append(NarKey(name, extension))
    return Forgotten(tuple(forgotten), len(rows) < limit)


def _has_narinfos(txn: Any, row_id: int) -> bool:
    found = txn.execute("SELECT 1 FROM narinfos WHERE nar_file_id = ? LIMIT 1", (row_id,))
    return found.fetchone() is not None


def created_at(txn: Any) -> datetime:
    """When the first migration was applied."""
    row = txn.execute("SELECT MIN(applied_at) FROM schema_migrations").fetchone()
    return moment(int(row[0]))
