"""Rows of narinfos: plain functions on a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import evolve

from ncps.database.keyed_read import KeyedRead, list_of
from ncps.database.rows import (
    NAR_COLUMNS,
    NARINFO_COLUMNS,
    NARINFO_WIDTH,
    entry_of,
    milliseconds,
    nar_of,
)
from ncps.nix.narurl import NarKey
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ports.catalog import LONGEST_AMONG


class Long(Exception):
    """A text is too long to be read on the reactor's thread, or together with others."""


_JOIN: Final = "FROM narinfos i JOIN nar_files n ON n.id = i.nar_file_id WHERE i.hash"

_SHORT_COLUMNS: Final = NARINFO_COLUMNS.replace(
    "i.narinfo",
    f"CASE WHEN LENGTH(i.narinfo) > {LONGEST_AMONG} THEN NULL ELSE i.narinfo END",
)


def find(txn: Any, digest: str) -> tuple[NarInfoEntry, NarRecord] | None:
    """Return a narinfo of any length, and the record of its NAR."""
    row = txn.execute(
        f"SELECT {NARINFO_COLUMNS}, {NAR_COLUMNS} {_JOIN} = ?",
        (digest,),
    ).fetchone()
    return None if row is None else _read(row)


def among(txn: Any, digests: Sequence[str]) -> dict[str, tuple[NarInfoEntry, NarRecord] | None]:
    """Return the existing ones of some narinfos. See `Catalog.narinfos_among`."""
    if not digests:
        return {}
    return {
        digest: None if row[1] is None else _read(row)
        for digest, row in _rows(txn, digests).items()
    }


def _rows(txn: Any, digests: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return the rows of some narinfos, each with that of its NAR; a long text becomes None."""
    listed, parameters = list_of(digests)
    found = txn.execute(
        f"SELECT {_SHORT_COLUMNS}, {NAR_COLUMNS} {_JOIN} IN {listed}",
        parameters,
    ).fetchall()
    return {row[0]: row for row in found}


def _short(row: Sequence[Any]) -> tuple[NarInfoEntry, NarRecord]:
    if row[1] is None:
        raise Long
    return _read(row)


def _read(row: Sequence[Any]) -> tuple[NarInfoEntry, NarRecord]:
    return entry_of(row), nar_of(row[NARINFO_WIDTH:])


BY_DIGEST: Final = KeyedRead(_rows, _short)
"""Narinfos by the hash part of their paths, each with the record of its NAR.

Raises Long if a narinfo has more than `LONGEST_AMONG` characters.
"""


_OF_NAR = (
    f"SELECT {NARINFO_COLUMNS} FROM nar_files n JOIN narinfos i ON i.nar_file_id = n.id"  # noqa: S608
    " WHERE n.name = ? AND n.extension = ? ORDER BY i.hash"
)


def of_nar(txn: Any, key: NarKey, *, is_locked: bool = False) -> list[NarInfoEntry]:
    """Return all narinfos of a NAR.

    :param is_locked: whether to lock them against other transactions until the end of this one.
    """
    rows = txn.execute(
        f"{_OF_NAR} FOR UPDATE" if is_locked else _OF_NAR, (key.name, key.extension)
    ).fetchall()
    return [entry_of(row) for row in rows]


ALIKE: Final = (
    f"SELECT {NARINFO_COLUMNS} FROM nar_files m"  # noqa: S608 - columns
    " JOIN nar_files n ON n.nar_hash = m.nar_hash"
    " JOIN narinfos i ON i.nar_file_id = n.id"
    " WHERE m.name = ? AND m.extension = ? ORDER BY i.hash LIMIT 10"
)


def alike(txn: Any, key: NarKey) -> list[NarInfoEntry]:
    """Return some narinfos of NARs with the same NarHash."""
    rows = txn.execute(ALIKE, (key.name, key.extension)).fetchall()
    return [entry_of(row) for row in rows]


def put(txn: Any, entry: NarInfoEntry, nar_file_id: int) -> None:
    """Insert or replace a narinfo; its last use stays."""
    columns: dict[str, object] = {
        "nar_file_id": nar_file_id,
        "store_path_name": entry.narinfo.store_path.name,
        "narinfo": entry.narinfo.render().decode(),
        "upstream": entry.upstream,
        "upstream_url": entry.upstream_url,
        "verified": int(entry.is_verified),
        "verified_by": entry.verified_by,
        "signed_by": entry.signed_by,
        "fetched_at": milliseconds(entry.fetched_at),
    }
    replaced = ", ".join(f"{name} = excluded.{name}" for name in columns)
    columns |= {"hash": entry.digest, "last_used_at": milliseconds(entry.last_used_at)}
    txn.execute(
        f"INSERT INTO narinfos ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
        f" ON CONFLICT (hash) DO UPDATE SET {replaced}",
        tuple(columns.values()),
    )


def is_known(txn: Any, digest: str) -> bool:
    """Return whether a path has a narinfo."""
    found = txn.execute("SELECT 1 FROM narinfos WHERE hash = ?", (digest,))
    return found.fetchone() is not None


def fill_file_facts(txn: Any, nar: NarRecord, nar_file_id: int) -> list[NarInfoEntry]:
    """Set FileHash and FileSize in the narinfos of a NAR to those of its stored file.

    Return all narinfos of the NAR.
    """
    found = of_nar(txn, nar.key, is_locked=True)
    entries = [_filled(entry, nar) for entry in found]
    for before, entry in zip(found, entries, strict=True):
        if entry is not before:
            put(txn, entry, nar_file_id)
    return entries


def _filled(entry: NarInfoEntry, nar: NarRecord) -> NarInfoEntry:
    narinfo = entry.narinfo
    if narinfo.compression == "none":
        return entry  # the file is the NAR, which is signed
    corrected = evolve(
        narinfo,
        file_hash=nar.file_hash or narinfo.file_hash,
        file_size=nar.file_size or narinfo.file_size,
    )
    return entry if corrected == narinfo else evolve(entry, narinfo=corrected)


def forget(txn: Any, digest: str) -> bool:
    """Delete a narinfo; False if there is none."""
    return int(txn.execute("DELETE FROM narinfos WHERE hash = ?", (digest,)).rowcount) > 0


def touch(txn: Any, uses: Mapping[str, datetime]) -> None:
    """Set times of last use; ignore earlier times."""
    txn.executemany(
        "UPDATE narinfos SET last_used_at = ? WHERE hash = ? AND COALESCE(last_used_at, 0) < ?",
        # Every transaction locks rows in this order, so there is no deadlock.
        [(milliseconds(at), digest, milliseconds(at)) for digest, at in sorted(uses.items())],
    )


def count(txn: Any) -> int:
    """Return the number of narinfos."""
    return int(txn.execute("SELECT COUNT(*) FROM narinfos").fetchone()[0])
