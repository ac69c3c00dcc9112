"""Look-ups of blocked paths, for transactions that record narinfos and NARs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ncps.database.keyed_read import KeyedRead, list_of
from ncps.errors import Malformed
from ncps.nix.hashes import Hash
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ports.removals import Blocked


def _rows(txn: Any, digests: Sequence[str]) -> dict[str, bool]:
    listed, parameters = list_of(digests)
    rows = txn.execute(
        f"SELECT hash FROM blocked_paths WHERE hash IN {listed}",  # noqa: S608 - a list of ?
        parameters,
    ).fetchall()
    return dict.fromkeys((digest for (digest,) in rows), True)


BLOCKED_PATHS: Final = KeyedRead(_rows, bool)
"""Blocked paths by their hash parts; other paths have no value."""


def is_blocked_path(txn: Any, digest: str) -> bool:
    """Return whether the path with this hash part is blocked."""
    return BLOCKED_PATHS.one(txn, digest) is not None


def is_blocked_file(txn: Any, hashes: Iterable[Hash]) -> bool:
    """Return whether one of these hashes is that of a blocked NAR or of its file."""
    texts = sorted({str(each) for each in hashes})
    if not texts:  # an empty list is no SQL for some engines
        return False
    row = txn.execute(
        f"SELECT 1 FROM blocked_files WHERE file_hash IN ({', '.join('?' * len(texts))}) LIMIT 1",  # noqa: S608
        tuple(texts),
    ).fetchone()
    return row is not None


def refuse_narinfo(txn: Any, entry: NarInfoEntry, nar: NarRecord) -> None:
    """Raise Blocked for a narinfo whose path or NAR is blocked."""
    if is_blocked_path(txn, entry.digest) or is_blocked_file(
        txn, {entry.narinfo.nar_hash, *hashes_of(nar)}
    ):
        raise Blocked(f"{entry.digest} is blocked here (`ncps rm --list-blocked`)")


def refuse_nar(txn: Any, nar: NarRecord) -> None:
    """Raise Blocked for a blocked NAR."""
    if is_blocked_file(txn, hashes_of(nar)):
        raise Blocked(f"{nar.key.file_name} is blocked here (`ncps rm --list-blocked`)")


def hashes_of(nar: NarRecord) -> set[Hash]:
    """Return the hashes in a NAR's record, and the hash that is its name."""
    found = {each for each in (nar.nar_hash, nar.file_hash) if each is not None}
    try:
        return found | {nar.key.as_hash()}
    except Malformed:
        return found
