"""Dialects: what differs between database engines, one object each."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ncps.errors import NcpsError, StorageFull, Unavailable

BUSY_TIMEOUT_S = 10.0


class SQLite:
    """SQLite in a file, for one process (D10).

    `synchronous=NORMAL` in WAL mode: after a power loss the last transactions may be missing, never
    half there. Bytes are synced before their row is written, so a missing row is a miss whose
    bytes are taken over again.
    """

    name = "sqlite"
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """Open a connection for direct use; the caller closes it."""
        connection: sqlite3.Connection = sqlite3.connect(self.path, **self.arguments)
        self.prepare(connection, read_only=read_only)
        return connection

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `connect`, beside the path."""
        # adbapi closes connections on another thread than it opened them on.
        return {
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": BUSY_TIMEOUT_S,
            "cached_statements": 256,
        }

    def prepare(self, connection: Any, *, read_only: bool) -> None:
        """Set up a new connection."""
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "cache_size = -65536",
            "mmap_size = 268435456",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")

    def is_retryable(self, error: Exception) -> bool:
        """Whether the whole interaction may be tried again."""
        return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)

    def translated(self, error: Exception) -> NcpsError:
        """Our error for the driver's."""
        text = str(error)
        if "full" in text or "readonly" in text or "read-only" in text:
            return StorageFull(f"the database cannot be written: {text}")
        return Unavailable(f"the database does not answer: {text}")
