"""SqlTwins: the `Twins` port on a database, and its plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from ncps.database import accounts, blocks, narinfos, nars
from ncps.database.pool import Database
from ncps.database.rows import NAR_COLUMNS, milliseconds, moment, nar_of
from ncps.errors import NotFound
from ncps.nix.narurl import NarKey
from ncps.ports import IdleNar, NarInfoEntry, NarRecord
from ncps.ports.twins import TwinCandidates, Twins, last_shown, renamed

_OPEN: Final = """
FROM nar_files n WHERE n.recompressed_at IS NULL AND n.compression IN ({marks})
    AND n.stored_size >= ? AND n.verified_at IS NOT NULL AND n.nar_hash IS NOT NULL
    AND n.uploaded_at IS NULL AND n.upstream <> '' AND n.made_from IS NULL
    AND n.encoding = n.compression
"""

_REUSED: Final = "n.last_used_at >= n.stored_at + ?"

_USED_SINCE: Final = "n.last_used_at >= ?"

_REPLACED: Final = f"""
SELECT {NAR_COLUMNS} FROM nar_files n
WHERE n.recompressed_at < ? AND n.stored_at IS NOT NULL AND COALESCE(n.last_used_at, 0) < ?
AND n.upstream <> ''
AND NOT EXISTS (SELECT 1 FROM narinfos i WHERE i.nar_file_id = n.id)
AND EXISTS (
    SELECT 1 FROM nar_files t
    WHERE t.nar_hash = n.nar_hash AND t.made_from IS NOT NULL AND t.stored_at IS NOT NULL
)
ORDER BY n.recompressed_at, n.id LIMIT ?
"""  # noqa: S608 - columns


class SqlTwins(Twins):
    """The twins in a database; see `ncps.ports.twins`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wanting(self, limit: int, wanted: TwinCandidates) -> Sequence[NarRecord]:
        return await self._database.read(wanting, limit, wanted)

    async def waiting(self, wanted: TwinCandidates) -> int:
        return await self._database.read(waiting, wanted)

    async def join(
        self, twin: NarRecord, original: NarKey, fence: int = 0
    ) -> Sequence[NarInfoEntry]:
        return await self._database.write(join, twin, original, fence)

    async def tried(self, key: NarKey, at: datetime) -> None:
        await self._database.write(tried, key, at)

    async def part(self, key: NarKey) -> bool:
        return await self._database.write(part, key)

    async def replaced(self, before: datetime, limit: int) -> Sequence[IdleNar]:
        return await self._database.read(replaced, before, limit)


def _open(wanted: TwinCandidates) -> tuple[str, tuple[object, ...]]:
    """Return the end of a statement that finds NARs to make twins from, and its parameters."""
    condition = _OPEN.format(marks=", ".join("?" * len(wanted.compressions)))
    parameters: tuple[object, ...] = (*wanted.compressions, wanted.min_size)
    if wanted.reused_s is not None:
        condition = f"{condition} AND {_REUSED}"
        parameters = (*parameters, round(1000 * wanted.reused_s))
    if wanted.used_since is not None:
        condition = f"{condition} AND {_USED_SINCE}"
        parameters = (*parameters, milliseconds(wanted.used_since))
    return condition, parameters


def wanting(txn: Any, limit: int, wanted: TwinCandidates) -> list[NarRecord]:
    """Return NARs to make twins from. See `Twins.wanting`."""
    condition, parameters = _open(wanted)
    rows = txn.execute(
        f"SELECT {NAR_COLUMNS} {condition} AND EXISTS"  # noqa: S608 - our own words
        " (SELECT 1 FROM narinfos i WHERE i.nar_file_id = n.id) ORDER BY n.id LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    return [nar_of(row) for row in rows]


def waiting(txn: Any, wanted: TwinCandidates) -> int:
    """Return the number of such NARs. See `Twins.waiting`."""
    condition, parameters = _open(wanted)
    return int(txn.execute(f"SELECT COUNT(*) {condition}", parameters).fetchone()[0])


def join(txn: Any, twin: NarRecord, original: NarKey, fence: int) -> list[NarInfoEntry]:
    """Record a twin and move narinfos to it. See `Twins.join`."""
    blocks.refuse_nar(txn, twin)
    ids: dict[NarKey, int] = {}
    written = None
    for key in _in_order(twin.key, original):
        if key == original:
            row = _lock(txn, key)
            there = None if row is None else nar_of(row)
            if there is None or not there.is_stored or there.nar_hash != twin.nar_hash:
                raise NotFound(f"{key.file_name} is not stored any more")
            ids[key] = row[-1]
        else:
            written = nars.mark_stored(txn, twin, fence)
            ids[key] = written.row_id
    assert written is not None
    nars.update(txn, ids[original], {"recompressed_at": milliseconds(twin.stored_at)})
    _move(txn, original, twin, ids[twin.key])
    entries = narinfos.fill_file_facts(txn, twin, ids[twin.key])
    accounts.add(txn, written.change)
    return entries


def part(txn: Any, key: NarKey) -> bool:
    """Move narinfos back from a twin. See `Twins.part`."""
    twin = nars.find(txn, key)
    if twin is None or not twin.made_from:
        return False
    original = NarKey.parse(twin.made_from)
    rows = {each: _lock(txn, each) for each in _in_order(key, original)}
    there = rows[original]
    if there is None:
        return False
    nar = nar_of(there)
    if nar.nar_hash != twin.nar_hash:
        return False
    nars.update(txn, there[-1], {"recompressed_at": None})
    _move(txn, key, nar, there[-1])
    return True


def _move(txn: Any, key: NarKey, to: NarRecord, row_id: int) -> None:
    """Make the narinfos of one NAR file name another file of the same NAR.

    The last use of the narinfos becomes that of the former file: clients have its URL (P5).
    """
    entries = narinfos.of_nar(txn, key, is_locked=True)
    for entry in entries:
        narinfos.put(txn, renamed(entry, to), row_id)
    if (at := last_shown(entries)) is not None:
        nars.touch(txn, {key: at})


def _in_order(*keys: NarKey) -> list[NarKey]:
    """Sort keys in the order in which every transaction locks their rows, against deadlocks."""
    return sorted(keys, key=lambda key: (key.name, key.extension))


def _lock(txn: Any, key: NarKey) -> Any:
    """Lock a row; return its `NAR_COLUMNS` and its id, or None."""
    return txn.execute(
        f"SELECT {NAR_COLUMNS}, n.id FROM nar_files n"  # noqa: S608 - columns
        " WHERE n.name = ? AND n.extension = ? FOR UPDATE",
        (key.name, key.extension),
    ).fetchone()


def tried(txn: Any, key: NarKey, at: datetime) -> None:
    """Record an attempt. See `Twins.tried`."""
    txn.execute(
        "UPDATE nar_files SET recompressed_at = ? WHERE name = ? AND extension = ?",
        (milliseconds(at), key.name, key.extension),
    )


def replaced(txn: Any, before: datetime, limit: int) -> list[IdleNar]:
    """Return originals that may be removed. See `Twins.replaced`."""
    then = milliseconds(before)
    rows = txn.execute(_REPLACED, (then, then, limit)).fetchall()
    found = [nar_of(row) for row in rows]
    return [
        IdleNar(nar, max(nar.last_used_at or moment(0), nar.stored_at or moment(0)))
        for nar in found
    ]
