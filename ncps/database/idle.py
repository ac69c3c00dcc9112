"""Idle NARs: the search for NARs that were unused for long, and the change of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from ncps.database import accounts
from ncps.database.accounts import NOTHING, Change
from ncps.database.pins import NARS as PINNED
from ncps.database.rows import NAR_COLUMNS, milliseconds, moment, nar_of
from ncps.nix.narurl import NarKey
from ncps.ports import EvictedNar, Forgotten, IdleNar

_ONLY_COPY: Final = "k.uploaded_at IS NOT NULL AND k.upstream = ''"
_ONLY_COPIES: Final = f"k.uploaded_at >= 0 AND {_ONLY_COPY}"
"""The same rows; with a range of `uploaded_at` engines use the index, with IS NOT NULL not."""

SIZE_OF_ONLY_COPIES: Final = (
    "SELECT COALESCE(SUM(k.stored_size), 0) FROM nar_files k"  # noqa: S608 - ours
    f" WHERE k.stored_at IS NOT NULL AND {_ONLY_COPIES}"
)


def _find(which: str, pinned: str = "", is_free: str = "") -> str:
    """Return the statement that searches for idle NARs.

    The engines have no common function for the largest of several values, hence CASE. The inner
    query sorts few columns; the outer one reads only the returned rows completely. With GROUP BY,
    SQLite does not search the uses of narinfos again in each comparison. The groups have the order
    of the primary key, so MariaDB makes no table of them: with a million rows it takes 4 s in place
    of 15, which is longer than a statement may take. The list of pinned NARs is made once, and only
    if there are pins. Without a last use the time of storing counts. A NAR with the last use 0 was
    fetched ahead, and no client has asked for it: if no client has asked for its narinfo either, it
    comes first.

    :param which: condition on a row of `nar_files k`.
    :param pinned: join of the pinned NARs.
    :param is_free: condition that excludes the pinned NARs.
    """
    return f"""
SELECT {NAR_COLUMNS}, t.used_at FROM (
    SELECT m.id, CASE
        WHEN m.nar_used < 0 AND m.stored_at > m.narinfo_used THEN m.stored_at
        WHEN m.nar_used > m.narinfo_used THEN m.nar_used
        ELSE m.narinfo_used END AS used_at
    FROM (
        SELECT k.id, MAX(k.stored_at) AS stored_at, MAX(COALESCE(k.last_used_at, -1)) AS nar_used,
            COALESCE(MAX(i.last_used_at), 0) AS narinfo_used
        FROM nar_files k LEFT JOIN narinfos i ON i.nar_file_id = k.id {pinned}
        WHERE k.stored_at < ? AND (k.last_used_at IS NULL OR k.last_used_at < ?) {is_free}
            AND {which}
        GROUP BY k.id
    ) m
    WHERE m.nar_used < ? AND m.narinfo_used < ?
    ORDER BY used_at, m.id LIMIT ?
) t JOIN nar_files n ON n.id = t.id ORDER BY t.used_at, t.id
"""  # noqa: S608 - columns


_WHICH: Final = {True: _ONLY_COPIES, False: f"NOT ({_ONLY_COPY})"}
FIND: Final = {only_copies: _find(which) for only_copies, which in _WHICH.items()}
"""The statement without pins, by whether it searches for only copies."""
_FIND_BESIDE_PINS: Final = {
    only_copies: _find(which, f"LEFT JOIN ({PINNED}) q ON q.id = k.id", "AND q.id IS NULL")
    for only_copies, which in _WHICH.items()
}

_IS_PINNED: Final = """
EXISTS (
    SELECT 1 FROM narinfos h JOIN pinned_paths p ON p.hash = h.hash WHERE h.nar_file_id = {id}
)
"""

_EVICT: Final = f"""
UPDATE nar_files SET stored_at = NULL, stored_size = NULL, stored_tag = '', verified_at = NULL,
    last_used_at = COALESCE(last_used_at, ?)
WHERE name = ? AND extension = ? AND stored_at = ? AND stored_size = ?
AND COALESCE(last_used_at, 0) <= ? AND NOT EXISTS (
    SELECT 1 FROM narinfos i WHERE i.nar_file_id = nar_files.id AND i.last_used_at > ?
) AND NOT {_IS_PINNED.format(id="nar_files.id")}
"""  # noqa: S608 - our own words

_UNUSED: Final = f"""
SELECT n.id, n.name, n.extension, COALESCE(n.last_used_at, -1) FROM nar_files n
WHERE n.stored_at IS NULL AND COALESCE(n.last_used_at, 0) < ? AND NOT EXISTS (
    SELECT 1 FROM narinfos i
    WHERE i.nar_file_id = n.id AND (i.last_used_at >= ? OR i.fetched_at >= ?)
) AND NOT {_IS_PINNED.format(id="n.id")}
ORDER BY n.id LIMIT ?
"""  # noqa: S608 - our own words

_FORGET: Final = f"""
DELETE FROM nar_files WHERE id = ? AND stored_at IS NULL AND COALESCE(last_used_at, 0) < ?
AND NOT EXISTS (
    SELECT 1 FROM narinfos i
    WHERE i.nar_file_id = nar_files.id AND (i.last_used_at >= ? OR i.fetched_at >= ?)
) AND NOT {_IS_PINNED.format(id="nar_files.id")}
"""  # noqa: S608 - our own words


_ABANDONED: Final = f"""
SELECT {NAR_COLUMNS}, CASE WHEN n.last_used_at > n.stored_at THEN n.last_used_at
    ELSE n.stored_at END AS used_at
FROM nar_files n
WHERE n.uploaded_at < ? AND n.stored_at < ? AND COALESCE(n.last_used_at, 0) < ?
AND NOT EXISTS (SELECT 1 FROM narinfos i WHERE i.nar_file_id = n.id)
ORDER BY n.uploaded_at, n.id LIMIT ?
"""  # noqa: S608 - columns


def find(txn: Any, before: datetime, limit: int, *, only_copies: bool = False) -> list[IdleNar]:
    """Return stored NARs that were last used before a time, the longest unused first.

    :param only_copies: see `Inventory.idle`.
    """
    then = milliseconds(before)
    has_pins = txn.execute("SELECT 1 FROM pinned_paths LIMIT 1").fetchone() is not None
    statement = (_FIND_BESIDE_PINS if has_pins else FIND)[only_copies]
    rows = txn.execute(statement, (then, then, then, then, limit)).fetchall()
    return _idle(rows)


def only_copies(txn: Any) -> int:
    """Return the bytes of stored uploads for which no upstream is known."""
    return int(txn.execute(SIZE_OF_ONLY_COPIES).fetchone()[0])


def abandoned(txn: Any, before: datetime, limit: int) -> list[IdleNar]:
    """Return uploads without a narinfo that were not used since a time; see `Inventory`."""
    then = milliseconds(before)
    return _idle(txn.execute(_ABANDONED, (then, then, then, limit)).fetchall())


def _idle(rows: Sequence[Any]) -> list[IdleNar]:
    return [IdleNar(nar_of(row), moment(int(row[-1]))) for row in rows]


def evict(txn: Any, victims: Sequence[IdleNar]) -> tuple[list[EvictedNar], Change]:
    """Mark NARs as missing, if `find` would still return them; see `Inventory.evict`."""
    evicted, change = [], NOTHING
    # Every transaction locks several NARs in this order.
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
    """Delete rows of NARs that are not stored and unused; see `Inventory.forget_unused`."""
    then = milliseconds(before)
    rows = txn.execute(_UNUSED, (then, then, then, limit)).fetchall()
    forgotten = []
    for row_id, name, extension, used_at in rows:
        # The statement checks again under the lock: the NAR may have been stored or used since.
        if used_at < 0 and not _has_narinfos(txn, row_id):
            txn.execute(
                "UPDATE nar_files SET last_used_at = ? WHERE id = ? AND last_used_at IS NULL",
                (milliseconds(now), row_id),
            )
        elif txn.execute(_FORGET, (row_id, then, then, then)).rowcount == 1:
            forgotten.append(NarKey(name, extension))
    return Forgotten(tuple(forgotten), len(rows) < limit)


def _has_narinfos(txn: Any, row_id: int) -> bool:
    found = txn.execute("SELECT 1 FROM narinfos WHERE nar_file_id = ? LIMIT 1", (row_id,))
    return found.fetchone() is not None


def created_at(txn: Any) -> datetime:
    """Return when the first migration was applied."""
    row = txn.execute("SELECT MIN(applied_at) FROM schema_migrations").fetchone()
    return moment(int(row[0]))
