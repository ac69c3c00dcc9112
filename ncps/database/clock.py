"""The time of day by the clock of the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def read(txn: Any) -> datetime:
    """Return the time of the server's clock, to the second; SQLite's is that of this machine."""
    (found,) = txn.execute("SELECT CURRENT_TIMESTAMP").fetchone()
    # SQLite returns text. A time without a zone is in UTC, the zone of our sessions.
    moment = datetime.fromisoformat(found) if isinstance(found, str) else found
    aware: datetime = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware
