"""Rows of NARs: plain functions on a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import frozen

from ncps.database import accounts
from ncps.database.accounts import NOTHING, Change
from ncps.database.keyed_read import KeyedRead, list_of
from ncps.database.rows import NAR_COLUMNS, WITHOUT_BYTES, columns_of, milliseconds, nar_of
from ncps.errors import Conflict, Unavailable
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord
from ncps.ports.catalog import NEVER_ASKED_FOR

_FACTS = ("compression", "file_size", "file_hash", "nar_size", "nar_hash")
_ORIGIN = ("upstream", "origin_url")

CLAIMS: Final = 4
"""Attempts to find or insert a row while other transactions delete it."""


def find(txn: Any, key: NarKey) -> NarRecord | None:
    """Return the record of a NAR, or None."""
    return BY_KEY.one(txn, key)


def _rows(txn: Any, keys: Sequence[NarKey]) -> dict[NarKey, Sequence[Any]]:
    """Return the rows of some keys; the statement also reads other extensions of their names."""
    wanted = {(key.name, key.extension): key for key in keys}
    listed, parameters = list_of(list(dict.fromkeys(key.name for key in keys)))
    rows = txn.execute(
        f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.name IN {listed}",  # noqa: S608 - columns
        parameters,
    ).fetchall()
    return {wanted[row[0], row[1]]: row for row in rows if (row[0], row[1]) in wanted}


def are_known(txn: Any, keys: Sequence[NarKey]) -> bool:
    """Return whether one of some keys has a row."""
    return bool(_rows(txn, keys))


BY_KEY: Final = KeyedRead(_rows, nar_of)
"""Records of NARs by their names."""


def stored_file(txn: Any, file_hash: Hash, extension: str) -> NarRecord | None:
    """Return a stored NAR whose file has this hash. See `Catalog.stored_file`."""
    row = txn.execute(
        f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.file_hash = ? AND n.extension = ?"  # noqa: S608
        " AND n.stored_at IS NOT NULL ORDER BY n.id LIMIT 1",
        (str(file_hash), extension),
    ).fetchone()
    return None if row is None else nar_of(row)


@frozen(kw_only=True)
class Claim:
    """A row that is locked against other transactions until the end of this one.

    :ivar fence: number of the lease under which its bytes were stored; 0 if there was none.
    :ivar there: the record in the row.
    :ivar was_missing: whether the row was inserted by this claim, or by another one just before.
    """

    row_id: int
    fence: int
    there: NarRecord
    was_missing: bool


@frozen(kw_only=True)
class Written:
    """A row that was written, and the resulting change of the accounts."""

    row_id: int
    change: Change


def claim(txn: Any, nar: NarRecord) -> Claim:
    """Lock and return the row of a NAR; insert it if it is missing.

    An inserted row is not stored, so that its update shows the change of the accounts.
    """
    for attempt in range(CLAIMS):
        row = txn.execute(
            f"SELECT {NAR_COLUMNS}, n.fence, n.id FROM nar_files n"  # noqa: S608 - columns
            " WHERE n.name = ? AND n.extension = ? FOR UPDATE",
            (nar.key.name, nar.key.extension),
        ).fetchone()
        if row is not None:
            return Claim(row_id=row[-1], fence=row[-2], there=nar_of(row), was_missing=attempt > 0)
        columns = {
            "name": nar.key.name,
            "extension": nar.key.extension,
            **columns_of(nar),
            **WITHOUT_BYTES,
        }
        txn.execute(
            f"INSERT INTO nar_files ({', '.join(columns)})"  # noqa: S608 - our own names
            f" VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO NOTHING",
            tuple(columns.values()),
        )
    raise Unavailable(f"the row of NAR {nar.key.name} is deleted after each insertion")


def update(txn: Any, row_id: int, columns: Mapping[str, object]) -> None:
    """Set columns of a row."""
    if columns:
        txn.execute(
            f"UPDATE nar_files SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?",  # noqa: S608
            (*columns.values(), row_id),
        )


def announce(txn: Any, nar: NarRecord) -> Written:
    """Insert or update the row of a NAR that a narinfo names. See `Catalog.add_narinfo`."""
    row = claim(txn, nar)
    new, kept = columns_of(nar), columns_of(row.there)
    if row.there.is_stored:
        is_same = nar.nar_hash is not None and nar.nar_hash in {
            row.there.nar_hash,
            row.there.file_hash,  # computed, like all facts of a stored file
        }
        facts = _FACTS if is_same else ()
        columns = {name: new[name] for name in facts if kept[name] in {None, ""}}
        if not (row.there.upstream or row.there.origin_url):
            columns |= {name: new[name] for name in _ORIGIN}
    elif row.was_missing:
        columns = new
    elif row.there.was_stored:  # its facts were computed; those in the narinfo may be wrong
        columns = {name: new[name] for name in _ORIGIN}
    else:
        columns = {name: new[name] for name in _FACTS + _ORIGIN}
    if not row.was_missing and row.there.recompressed_at is not None and _has_twin(txn, row.there):
        columns["recompressed_at"] = None
    return _write(txn, row, _changes(kept, columns))


def _has_twin(txn: Any, nar: NarRecord) -> bool:
    """Return whether there is a stored twin of this file, which a later narinfo may name."""
    found = txn.execute(
        "SELECT 1 FROM nar_files t WHERE t.nar_hash = ? AND t.made_from = ?"
        " AND t.stored_at IS NOT NULL LIMIT 1",
        (str(nar.nar_hash), nar.key.file_name),
    )
    return found.fetchone() is not None


def _write(txn: Any, row: Claim, columns: Mapping[str, object]) -> Written:
    update(txn, row.row_id, columns)
    if "stored_size" not in columns:
        return Written(row_id=row.row_id, change=NOTHING)
    size = columns["stored_size"]
    assert size is None or isinstance(size, int)
    change = accounts.of_size(size) - accounts.of_size(row.there.stored_size)
    return Written(row_id=row.row_id, change=change)


def _changes(kept: Mapping[str, object], columns: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in columns.items() if kept[name] != value}


def mark_stored(txn: Any, nar: NarRecord, fence: int = 0) -> Written:
    """Insert or replace a row; a known last use stays.

    Raises Conflict if bytes were stored under a later lease; see `Catalog.mark_stored`.
    """
    row = claim(txn, nar)
    if 0 < fence < row.fence:
        raise Conflict(
            f"NAR {nar.key.name} was stored under lease {row.fence}, after this one ({fence})"
        )
    columns = columns_of(nar)
    is_guess = nar.last_used_at == NEVER_ASKED_FOR and row.there.last_used_at is not None
    if nar.last_used_at is None or is_guess:
        del columns["last_used_at"]
    columns = _changes(columns_of(row.there), columns)
    if fence > row.fence:
        columns["fence"] = fence
    return _write(txn, row, columns)


def mark_missing(txn: Any, key: NarKey) -> Change:
    """Record that the bytes are gone."""
    found = _locked(txn, key)
    if found is None:
        return NOTHING
    txn.execute(
        "UPDATE nar_files SET stored_at = NULL, stored_size = NULL, stored_tag = '',"
        " verified_at = NULL"
        " WHERE id = ?",
        (found.row_id,),
    )
    return found.change


def _locked(txn: Any, key: NarKey) -> Written | None:
    """Lock a row, if it exists; return it with the change of the accounts without its bytes.

    Change only the locked row afterwards, by its id: if there was none, another transaction may
    insert one and store its NAR before the next statement.
    """
    row = txn.execute(
        "SELECT id, stored_size FROM nar_files WHERE name = ? AND extension = ? FOR UPDATE",
        (key.name, key.extension),
    ).fetchone()
    if row is None:
        return None
    return Written(row_id=row[0], change=NOTHING - accounts.of_size(row[1]))


_COMPUTED: Final = (
    "compression",
    "encoding",
    "file_size",
    "file_hash",
    "nar_size",
    "nar_hash",
    "stored_tag",
    "verified_at",
)


def mark_verified(txn: Any, nar: NarRecord) -> bool:
    """Record the facts that were computed from stored bytes. See `Catalog.mark_verified`."""
    new = columns_of(nar)
    columns = {name: new[name] for name in _COMPUTED}
    changed = txn.execute(
        f"UPDATE nar_files SET {', '.join(f'{name} = ?' for name in columns)}"  # noqa: S608
        " WHERE name = ? AND extension = ? AND stored_at = ? AND stored_size = ?",
        (
            *columns.values(),
            nar.key.name,
            nar.key.extension,
            new["stored_at"],
            new["stored_size"],
        ),
    )
    return int(changed.rowcount) > 0


_FILE_FACTS: Final = ("file_size", "file_hash", *_ORIGIN)
"""Columns with facts from an upstream: those about the file, and its origin."""


def restate(txn: Any, nar: NarRecord) -> None:
    """Replace the facts about a file that was never stored. See `Catalog.restate`."""
    new = columns_of(nar)
    txn.execute(
        f"UPDATE nar_files SET {', '.join(f'{name} = ?' for name in _FILE_FACTS)}"  # noqa: S608
        " WHERE name = ? AND extension = ? AND stored_at IS NULL AND encoding = ''",
        (*(new[name] for name in _FILE_FACTS), nar.key.name, nar.key.extension),
    )


def unverified(txn: Any, limit: int, compressions: Sequence[str]) -> list[NarRecord]:
    """Return stored NARs that were never verified, oldest first. See `Catalog.unverified`."""
    if not compressions:  # an empty list is no SQL for some engines
        return []
    rows = txn.execute(
        f"SELECT {NAR_COLUMNS} FROM nar_files n WHERE n.verified_at IS NULL"  # noqa: S608 - columns
        " AND n.stored_at IS NOT NULL AND (n.nar_hash IS NULL AND n.uploaded_at IS NULL"
        f" OR n.nar_hash IS NOT NULL AND n.encoding IN ({', '.join('?' * len(compressions))}))"
        " ORDER BY n.stored_at, n.id LIMIT ?",
        (*compressions, limit),
    ).fetchall()
    return [nar_of(row) for row in rows]


def forget(txn: Any, key: NarKey) -> tuple[bool, Change]:
    """Delete a row and, by the foreign key, its narinfos; False if there is none."""
    found = _locked(txn, key)
    if found is None:
        return False, NOTHING
    txn.execute("DELETE FROM nar_files WHERE id = ?", (found.row_id,))
    return True, found.change


def touch(txn: Any, uses: Mapping[NarKey, datetime]) -> None:
    """Set times of last use; ignore earlier times."""
    txn.executemany(
        "UPDATE nar_files SET last_used_at = ? WHERE name = ? AND extension = ?"
        " AND COALESCE(last_used_at, 0) < ?",
        [
            (milliseconds(at), key.name, key.extension, milliseconds(at))
            # Every transaction locks rows in this order, so there is no deadlock.
            for key, at in sorted(uses.items(), key=lambda use: (use[0].name, use[0].extension))
        ],
    )
