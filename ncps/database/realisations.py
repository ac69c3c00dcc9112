"""SqlRealisations: the `Realisations` port on a database, and its plain functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ncps.database.narinfos import Long
from ncps.database.pool import Database
from ncps.database.rows import milliseconds, moment
from ncps.errors import Malformed, Unavailable
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.ports import RealisationEntry, Realisations
from ncps.ports.catalog import LONGEST_AMONG

TOUCH_BATCH: Final = 250
"""Times of last use per transaction."""

_COLUMNS: Final = (
    "name, value, upstream, uploaded, verified_by, signed_by, fetched_at, last_used_at"
)


class SqlRealisations(Realisations):
    """The realisations in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, key: RealisationKey) -> RealisationEntry | None:
        try:
            return await self._database.point(find, key, longest=LONGEST_AMONG)
        except Long:
            return await self._database.read(find, key)

    async def put(self, entry: RealisationEntry, before: RealisationEntry | None) -> bool:
        if entry.is_uploaded:
            return await self._database.write_settled(put, entry, before)
        return await self._database.write(put, entry, before)

    async def forget(self, key: RealisationKey) -> bool:
        is_gone = await self._database.write(forget, key)
        if is_gone:
            await self._database.settle()
        return is_gone

    async def uploaded(self) -> tuple[int, int]:
        return await self._database.read(uploaded)

    async def touch(self, uses: Mapping[RealisationKey, datetime]) -> None:
        # Every transaction locks rows in this order, so there is no deadlock.
        times = [(milliseconds(at), key.path, milliseconds(at)) for key, at in uses.items()]
        times.sort(key=lambda each: str(each[1]))
        for start in range(0, len(times), TOUCH_BATCH):
            await self._database.write(touch, times[start : start + TOUCH_BATCH])

    async def forget_unused(self, before: datetime, most: int, limit: int) -> int:
        return await self._database.write(forget_unused, before, most, limit)


def find(
    txn: Any, key: RealisationKey, *, is_locked: bool = False, longest: int | None = None
) -> RealisationEntry | None:
    """Return the row of a key, or None. Raises Unavailable if the row is damaged.

    Raises Long if the text has more than `longest` characters.

    :param is_locked: whether to lock it against other transactions until the end of this one.
    """
    row = txn.execute(
        f"SELECT {_COLUMNS} FROM realisations WHERE name = ?"  # noqa: S608 - columns
        + (" FOR UPDATE" if is_locked else ""),
        (key.path,),
    ).fetchone()
    if row is not None and longest is not None and len(row[1]) > longest:
        raise Long
    return None if row is None else _entry_of(row)


def put(txn: Any, entry: RealisationEntry, before: RealisationEntry | None) -> bool:
    """Write a row in place of `before`; see `Realisations.put`."""
    columns = _columns_of(entry)
    if before is None:
        columns |= {"name": entry.key.path, "last_used_at": milliseconds(entry.last_used_at)}
        txn.execute(
            f"INSERT INTO realisations ({', '.join(columns)})"  # noqa: S608 - columns
            f" VALUES ({', '.join('?' * len(columns))})"
            " ON CONFLICT (name) DO UPDATE SET name = excluded.name",
            tuple(columns.values()),
        )
        there = find(txn, entry.key, is_locked=True)
        return there is not None and _columns_of(there) == _columns_of(entry)
    there = find(txn, entry.key, is_locked=True)
    if there is None or _columns_of(there) not in (_columns_of(before), columns):
        return False
    txn.execute(
        f"UPDATE realisations SET {', '.join(f'{name} = ?' for name in columns)}"  # noqa: S608
        " WHERE name = ?",
        (*columns.values(), entry.key.path),
    )
    return True


def forget(txn: Any, key: RealisationKey) -> bool:
    """Delete the row of a key; False if there is none."""
    deleted = txn.execute("DELETE FROM realisations WHERE name = ?", (key.path,)).rowcount
    return int(deleted) > 0


def uploaded(txn: Any) -> tuple[int, int]:
    """Return the number of uploaded rows, and the characters of their texts."""
    count, size = txn.execute(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0) FROM realisations WHERE uploaded = 1"
    ).fetchone()
    return int(count), int(size)


def touch(txn: Any, times: Sequence[tuple[int | None, str, int | None]]) -> None:
    """Set times of last use: time, name, and the time again."""
    txn.executemany(
        "UPDATE realisations SET last_used_at = ? WHERE name = ? AND last_used_at < ?", times
    )


def forget_unused(txn: Any, before: datetime, most: int, limit: int) -> int:
    """Delete fetched rows that are too old or too many, the oldest first."""
    fetched = txn.execute("SELECT COUNT(*) FROM realisations WHERE uploaded = 0").fetchone()[0]
    rows = txn.execute(
        "SELECT name, last_used_at FROM realisations WHERE uploaded = 0"
        " ORDER BY last_used_at, name LIMIT ?",
        (limit,),
    ).fetchall()
    end, surplus = milliseconds(before), int(fetched) - most
    unused = [
        (str(name),)
        for at, (name, used_at) in enumerate(rows)
        if at < surplus or int(used_at) < (end or 0)
    ]
    if unused:
        # The statement checks again: a realisation may have been uploaded since the read.
        txn.executemany("DELETE FROM realisations WHERE name = ? AND uploaded = 0", sorted(unused))
    return len(unused)


def _columns_of(entry: RealisationEntry) -> dict[str, object]:
    """Return the columns by name, without those of key and last use."""
    return {
        "value": entry.realisation.render().decode(),
        "upstream": entry.upstream,
        "uploaded": int(entry.is_uploaded),
        "verified_by": entry.verified_by,
        "signed_by": entry.signed_by,
        "fetched_at": milliseconds(entry.fetched_at),
    }


def _entry_of(row: Sequence[Any]) -> RealisationEntry:
    try:
        key = RealisationKey.parse(row[0])
        realisation = Realisation.parse(row[1].encode(), key)
    except Malformed as error:
        raise Unavailable(f"the row of {row[0]} is damaged: {error}") from error
    return RealisationEntry(
        realisation=realisation,
        upstream=row[2],
        is_uploaded=bool(row[3]),
        verified_by=row[4] or "",
        signed_by=row[5] or "",
        fetched_at=moment(int(row[6])),
        last_used_at=moment(int(row[7])),
    )
