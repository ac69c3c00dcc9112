"""The time of day as the database has it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def read(txn: Any) -> datetime:
    """What the server's clock shows, to the second; SQLite's is that of this machine."""
    (found,) = txn.execute("SELECT CURRENT_TIMESTAMP").fetchone()
    # SQLite tells it as text. Where no zone is said, sessions are in UTC.
    moment = datetime.fromisoformat(found) if isinstance(found, str) else found
    told: datetime = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return told
