"""SqlPins: the pins of a catalog, and the paths that they hold.

Many small transactions write the paths of a pin, so that a closure of 100,000 paths delays no other
transaction. A row of `pinned_paths` whose pin is gone still protects its path until it is purged;
ids of pins are never reused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from ncps.database.pool import Database
from ncps.database.rows import milliseconds, moment
from ncps.errors import Refused
from ncps.ports.pins import MAX_PINS, Pin, Pins, PinTotals

BATCH: Final = 200
"""Paths in one transaction."""

HOLDERS: Final = 10
"""Roots that `holders` returns for one path, at most."""

_COLUMNS: Final = (
    "hash, label, created_at, expires_at, is_fetching, paths, missing, size, looked_at"
)

NARS: Final = (
    "SELECT DISTINCT i.nar_file_id AS id FROM pinned_paths p JOIN narinfos i ON i.hash = p.hash"
)
"""The ids of the NARs that pins hold."""

_TOTALS: Final = f"""
SELECT COUNT(*), COALESCE(SUM(n.stored_size), 0) FROM ({NARS}) q
JOIN nar_files n ON n.id = q.id WHERE n.stored_at IS NOT NULL
"""  # noqa: S608 - our own words


class SqlPins(Pins):
    """The pins in two tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, pin: Pin) -> bool:
        return await self._database.write(_add, pin)

    async def remove(self, digest: str) -> bool:
        pin_id = await self._database.write(_remove, digest)
        if pin_id is None:
            return False
        while await self._database.write(_let_go, pin_id) == BATCH:
            pass
        return True

    async def find(self, digest: str) -> Pin | None:
        return await self._database.point(_find, digest)

    async def all(self) -> list[Pin]:
        return await self._database.read(_all)

    async def hold(self, digest: str, paths: Collection[str]) -> None:
        for batch in batches(sorted(paths)):
            await self._database.write(_hold, digest, batch)

    async def look(self, pin: Pin) -> None:
        await self._database.write(_look, pin)

    async def due(
        self, *, missing_before: datetime, whole_before: datetime, limit: int
    ) -> list[Pin]:
        return await self._database.read(_due, missing_before, whole_before, limit)

    async def expired(self, now: datetime) -> list[Pin]:
        return await self._database.read(_expired, now)

    async def purge(self) -> int:
        count = 0
        while removed := await self._database.write(_purge):
            count += removed
        return count

    async def holders(self, paths: Collection[str]) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for batch in batches(paths):
            found |= await self._database.read(_holders, batch)
        return found

    async def totals(self) -> PinTotals:
        return await self._database.read(_totals)


def batches(paths: Collection[str], size: int = BATCH) -> Iterator[tuple[str, ...]]:
    """Divide hash parts into batches."""
    left = iter(paths)
    while batch := tuple(islice(left, size)):
        yield batch


def _pin_of(row: Sequence[Any]) -> Pin:
    return Pin(
        digest=row[0],
        label=row[1],
        created_at=moment(row[2]),
        expires_at=None if row[3] is None else moment(row[3]),
        is_fetching=bool(row[4]),
        paths=int(row[5]),
        missing=int(row[6]),
        size=int(row[7]),
        looked_at=None if row[8] is None else moment(row[8]),
    )


def _find(txn: Any, digest: str) -> Pin | None:
    row = txn.execute(f"SELECT {_COLUMNS} FROM pins WHERE hash = ?", (digest,)).fetchone()  # noqa: S608
    return None if row is None else _pin_of(row)


def _all(txn: Any) -> list[Pin]:
    rows = txn.execute(f"SELECT {_COLUMNS} FROM pins ORDER BY hash").fetchall()  # noqa: S608
    return [_pin_of(row) for row in rows]


def _add(txn: Any, pin: Pin) -> bool:
    row = txn.execute("SELECT id FROM pins WHERE hash = ? FOR UPDATE", (pin.digest,)).fetchone()
    if row is not None:
        txn.execute(
            "UPDATE pins SET label = ?, expires_at = ?,"
            " is_fetching = CASE WHEN is_fetching = 1 THEN 1 ELSE ? END WHERE id = ?",
            (pin.label, milliseconds(pin.expires_at), int(pin.is_fetching), row[0]),
        )
        return False
    if int(txn.execute("SELECT COUNT(*) FROM pins").fetchone()[0]) >= MAX_PINS:
        raise Refused(f"there are {MAX_PINS} pins already: remove some first (`ncps pin rm`)")
    txn.execute(
        f"INSERT INTO pins ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 0, 0, 0, NULL)"  # noqa: S608
        " ON CONFLICT (hash) DO UPDATE SET label = excluded.label,"
        " expires_at = excluded.expires_at",
        (
            pin.digest,
            pin.label,
            milliseconds(pin.created_at),
            milliseconds(pin.expires_at),
            int(pin.is_fetching),
        ),
    )
    return True


def _remove(txn: Any, digest: str) -> int | None:
    row = txn.execute("SELECT id FROM pins WHERE hash = ? FOR UPDATE", (digest,)).fetchone()
    if row is None:
        return None
    txn.execute("DELETE FROM pins WHERE id = ?", (row[0],))
    return int(row[0])


def _let_go(txn: Any, pin_id: int) -> int:
    rows = txn.execute(
        "SELECT hash FROM pinned_paths WHERE pin_id = ? ORDER BY hash LIMIT ?", (pin_id, BATCH)
    ).fetchall()
    txn.executemany(
        "DELETE FROM pinned_paths WHERE pin_id = ? AND hash = ?",
        [(pin_id, digest) for (digest,) in rows],
    )
    return len(rows)


def _purge(txn: Any) -> int:
    rows = txn.execute(
        "SELECT m.pin_id, m.hash FROM pinned_paths m LEFT JOIN pins p ON p.id = m.pin_id"
        " WHERE p.id IS NULL ORDER BY m.pin_id, m.hash LIMIT ?",
        (BATCH,),
    ).fetchall()
    txn.executemany(
        "DELETE FROM pinned_paths WHERE pin_id = ? AND hash = ?", [tuple(row) for row in rows]
    )
    return len(rows)


def _hold(txn: Any, digest: str, paths: Sequence[str]) -> None:
    row = txn.execute("SELECT id FROM pins WHERE hash = ?", (digest,)).fetchone()
    if row is not None:
        txn.executemany(
            "INSERT INTO pinned_paths (pin_id, hash) VALUES (?, ?)"
            " ON CONFLICT (pin_id, hash) DO UPDATE SET hash = excluded.hash",
            [(row[0], path) for path in paths],
        )


def _look(txn: Any, pin: Pin) -> None:
    txn.execute(
        "UPDATE pins SET paths = ?, missing = ?, size = ?, looked_at = ? WHERE hash = ?",
        (pin.paths, pin.missing, pin.size, milliseconds(pin.looked_at), pin.digest),
    )


def _due(txn: Any, missing_before: datetime, whole_before: datetime, limit: int) -> list[Pin]:
    rows = txn.execute(
        f"SELECT {_COLUMNS} FROM pins WHERE looked_at IS NULL"  # noqa: S608 - columns
        " OR (missing > 0 AND looked_at < ?) OR looked_at < ?"
        " ORDER BY COALESCE(looked_at, 0), hash LIMIT ?",
        (milliseconds(missing_before), milliseconds(whole_before), limit),
    ).fetchall()
    return [_pin_of(row) for row in rows]


def _expired(txn: Any, now: datetime) -> list[Pin]:
    rows = txn.execute(
        f"SELECT {_COLUMNS} FROM pins WHERE expires_at <= ? ORDER BY hash",  # noqa: S608 - columns
        (milliseconds(now),),
    ).fetchall()
    return [_pin_of(row) for row in rows]


def _holders(txn: Any, paths: Sequence[str]) -> dict[str, list[str]]:
    rows = txn.execute(
        "SELECT m.hash, p.hash FROM pinned_paths m JOIN pins p ON p.id = m.pin_id"  # noqa: S608
        f" WHERE m.hash IN ({', '.join('?' * len(paths))}) ORDER BY m.hash, p.hash",
        tuple(paths),
    ).fetchall()
    found: dict[str, list[str]] = {}
    for path, root in rows:
        roots = found.setdefault(path, [])
        if len(roots) < HOLDERS:
            roots.append(root)
    return found


def _totals(txn: Any) -> PinTotals:
    pins, missing = txn.execute("SELECT COUNT(*), COALESCE(SUM(missing), 0) FROM pins").fetchone()
    if not pins and txn.execute("SELECT 1 FROM pinned_paths LIMIT 1").fetchone() is None:
        return PinTotals()
    nars, size = txn.execute(_TOTALS).fetchone()
    return PinTotals(int(pins), int(nars), int(size), int(missing))
