"""Dialects: what differs between database engines, one object each."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable

BUSY_TIMEOUT_S: Final = 10.0
"""How long a connection of a thread waits for a lock of another process."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_UNUSABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH})


class SQLite:
    """SQLite in a file, for one process (D10).

    `synchronous=NORMAL` in WAL mode: after a power loss the last transactions may be missing, never
    half there. Bytes are synced before their row is written, so a missing row is a miss whose
    bytes are taken over again.
    """

    name = "sqlite"
    errors: tuple[type[Exception], ...] = (sqlite3.Error, OverflowError)
    begin_read = "BEGIN"
    begin_write = "BEGIN IMMEDIATE"

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(
        self, *, read_only: bool = False, timeout_s: float = BUSY_TIMEOUT_S
    ) -> sqlite3.Connection:
        """Open a connection for direct use; the caller closes it."""
        arguments = self.arguments | {"timeout": timeout_s}
        connection: sqlite3.Connection = sqlite3.connect(self.path, **arguments)
        try:
            self.prepare(connection, read_only=read_only)
        except BaseException:
            connection.close()
            raise
        return connection

    def inspect(self) -> sqlite3.Connection:
        """Open an existing file to look at it, whatever it is; nothing is written."""
        return sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S
        )

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
        return _code(error) in _BUSY

    def translated(self, error: Exception) -> NcpsError:
        """Our error for the driver's."""
        code = _code(error)
        if code in _FULL:
            return StorageFull(f"the database cannot be written: {error}")
        if code == sqlite3.SQLITE_CONSTRAINT or isinstance(error, OverflowError):
            return Corrupt(f"the database refuses these facts: {error}")
        if code in _UNUSABLE:
            return Refused(f"{self.path} cannot be used as an SQLite database: {error}")
        retry_after = 1.0 if code in _BUSY else None
        return Unavailable(f"the database does not answer: {error}", retry_after=retry_after)


def _code(error: Exception) -> int:
    """Primary result code; 0 if the error is not the engine's but the driver's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
