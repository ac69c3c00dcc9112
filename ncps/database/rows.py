"""Rows: the conversion between values of the ports and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ncps.errors import Malformed, Unavailable
from ncps.nix.hashes import Hash
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.ports import NarInfoEntry, NarRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

NAR_COLUMNS = (
    "n.name, n.extension, n.compression, n.encoding, n.file_size, n.file_hash, n.nar_size,"
    " n.nar_hash, n.upstream, n.origin_url, n.stored_size, n.stored_at, n.verified_at,"
    " n.last_used_at, n.stored_tag, n.uploaded_at, n.made_from, n.made_level,"
    " n.recompressed_at"
)
NARINFO_COLUMNS = (
    "i.hash, i.narinfo, i.upstream, i.upstream_url, i.verified_by, i.fetched_at, i.last_used_at,"
    " i.signed_by"
)
NARINFO_WIDTH = 8


def milliseconds(moment: datetime | None) -> int | None:
    """Return a time as the stored number: milliseconds since 1970."""
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND


def moment(value: int) -> datetime:
    """Return the time of a stored number."""
    return _EPOCH + value * _MILLISECOND


def _moment(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def _hash(text: str | None) -> Hash | None:
    return None if text is None else Hash.parse(text)


def nar_of(row: Sequence[Any]) -> NarRecord:
    """Return the record in a row of `NAR_COLUMNS`. Raises Unavailable if it is damaged."""
    try:
        return _nar_of(row)
    except Malformed as error:
        raise Unavailable(f"the row of NAR {row[0]} is damaged: {error}") from error


def _nar_of(row: Sequence[Any]) -> NarRecord:
    return NarRecord(
        key=NarKey(row[0], row[1]),
        compression=row[2],
        encoding=row[3],
        file_size=row[4],
        file_hash=_hash(row[5]),
        nar_size=row[6],
        nar_hash=_hash(row[7]),
        upstream=row[8],
        origin_url=row[9],
        stored_size=row[10],
        stored_at=_moment(row[11]),
        verified_at=_moment(row[12]),
        last_used_at=_moment(row[13]),
        stored_tag=row[14] or "",
        uploaded_at=_moment(row[15]),
        made_from=row[16] or "",
        made_level=row[17] or 0,
        recompressed_at=_moment(row[18]),
    )


def columns_of(nar: NarRecord) -> dict[str, object]:
    """Return the columns of a record by name, without those of its key."""
    return {
        "compression": nar.compression,
        "encoding": nar.encoding,
        "file_size": nar.file_size,
        "file_hash": None if nar.file_hash is None else str(nar.file_hash),
        "nar_size": nar.nar_size,
        "nar_hash": None if nar.nar_hash is None else str(nar.nar_hash),
        "upstream": nar.upstream,
        "origin_url": nar.origin_url,
        "stored_size": nar.stored_size,
        "stored_tag": nar.stored_tag,
        "stored_at": milliseconds(nar.stored_at),
        "verified_at": milliseconds(nar.verified_at),
        "last_used_at": milliseconds(nar.last_used_at),
        "uploaded_at": milliseconds(nar.uploaded_at),
        "made_from": nar.made_from or None,
        "made_level": nar.made_level or None,
        "recompressed_at": milliseconds(nar.recompressed_at),
    }


WITHOUT_BYTES: Final[Mapping[str, object]] = {
    "stored_at": None,
    "stored_size": None,
    "stored_tag": "",
    "verified_at": None,
}
"""The columns that `NarRecord.without_bytes` clears."""


def entry_of(row: Sequence[Any]) -> NarInfoEntry:
    """Return the narinfo in a row of `NARINFO_COLUMNS`. Raises Unavailable if it is damaged."""
    try:
        narinfo = NarInfo.parse(row[1].encode())
    except Malformed as error:
        raise Unavailable(f"the row of narinfo {row[0]} is damaged: {error}") from error
    return NarInfoEntry(
        digest=row[0],
        narinfo=narinfo,
        upstream=row[2],
        upstream_url=row[3],
        verified_by=row[4] or "",
        fetched_at=moment(row[5]),
        last_used_at=_moment(row[6]),
        signed_by=row[7] or "",
    )
