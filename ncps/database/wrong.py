"""Files that contain another NAR than their narinfo says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ncps.database.rows import milliseconds
from ncps.nix.hashes import Hash
from ncps.ports.catalog import WRONG_ENTRIES, WRONG_S


def note(txn: Any, nar_hash: Hash, file_hash: Hash, at: datetime) -> None:
    """Record a pair; delete pairs that are too old, and the oldest ones beyond the limit."""
    txn.execute(
        "INSERT INTO wrong_files (nar_hash, file_hash, found_at) VALUES (?, ?, ?)"
        " ON CONFLICT (nar_hash, file_hash) DO UPDATE SET found_at = excluded.found_at",
        (str(nar_hash), str(file_hash), milliseconds(at)),
    )
    txn.execute("DELETE FROM wrong_files WHERE found_at < ?", (milliseconds(_oldest(at)),))
    surplus = txn.execute(
        "SELECT found_at FROM wrong_files ORDER BY found_at DESC LIMIT 1 OFFSET ?",
        (WRONG_ENTRIES,),
    ).fetchone()
    if surplus is not None:
        txn.execute("DELETE FROM wrong_files WHERE found_at <= ?", (surplus[0],))


def is_noted(txn: Any, nar_hash: Hash, file_hash: Hash, now: datetime) -> bool:
    """Return whether a pair is recorded, and not too old."""
    row = txn.execute(
        "SELECT found_at FROM wrong_files WHERE nar_hash = ? AND file_hash = ? AND found_at >= ?",
        (str(nar_hash), str(file_hash), milliseconds(_oldest(now))),
    ).fetchone()
    return row is not None


def _oldest(now: datetime) -> datetime:
    return now - timedelta(seconds=WRONG_S)
