"""SQLite in a file, for the processes of one machine (D10)."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ncps.aio.places import remedy
from ncps.database import former
from ncps.database.dialects.base import Dialect, Sleep, Trouble
from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable

_SETTING: Final = "cache-database-url"
BUSY_TIMEOUT_S: Final = 10.0
"""Seconds that a connection of a thread waits for a lock of another process."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_UNUSABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH})
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class SQLite(Dialect):
    """The dialect of SQLite, with one file per database.

    In WAL mode with `synchronous=NORMAL` a loss of power may remove the last transactions, but each
    one completely. Bytes are synced before their row is written. So a missing row is only a miss,
    and adoption records the bytes again.
    """

    name = "sqlite"
    has_transactional_ddl = True
    begin_read = ("BEGIN",)
    begin_write = ("BEGIN IMMEDIATE",)
    begin_migration = ("BEGIN EXCLUSIVE",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error, OverflowError)

    def connect(
        self, *, read_only: bool = False, timeout_s: float = BUSY_TIMEOUT_S
    ) -> sqlite3.Connection:
        arguments = self.arguments | {"timeout": timeout_s}
        connection: sqlite3.Connection = sqlite3.connect(self.path, **arguments)
        try:
            self.set_up(connection, read_only=read_only)
        except BaseException:
            connection.close()
            raise
        return connection

    def inspect(self) -> sqlite3.Connection | None:
        if not self.path.exists():
            return None
        if not self.path.is_file():
            raise Refused(
                f"{self.path} cannot be used as an SQLite database: it is no file;"
                f" {_SETTING} should name a file, which ncps makes if it is missing"
            )
        # With `immutable`, SQLite makes no journal beside a file of another program.
        how = "mode=ro&immutable=1" if former.is_former_file(self.path) else "mode=ro"
        return sqlite3.connect(
            f"file:{quote(str(self.path))}?{how}", uri=True, timeout=BUSY_TIMEOUT_S
        )

    def prepare(self) -> None:
        """Make the directory of the file if it is missing. Raises Refused if it cannot be made."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(
                f"{_SETTING}: the directory {self.path.parent} cannot be made: {error.strerror};"
                f" {remedy(_SETTING, error)}"
            ) from error

    def alone(self, connection: Any, sleep: Sleep) -> AbstractContextManager[object]:
        return nullcontext()  # BEGIN EXCLUSIVE excludes them

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `connect`, without the path."""
        # adbapi closes connections in another thread than it opens them.
        return {
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": BUSY_TIMEOUT_S,
            "cached_statements": 256,
        }

    def set_up(self, connection: Any, *, read_only: bool) -> None:
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

    def translate(self, statement: str) -> str:
        return _translate(statement)

    def tables(self, connection: Any) -> set[str]:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name for (name,) in rows if not name.startswith("sqlite_")}

    def columns(self, connection: Any, table: str) -> set[str]:
        rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        return {name for (name,) in rows}

    def is_done_already(self, error: Exception) -> bool:
        return False

    def trouble(self, error: Exception) -> Trouble:
        return Trouble.CONFLICT if _code(error) in _BUSY else Trouble.FINAL

    def translated(self, error: Exception) -> NcpsError:
        code = _code(error)
        if code in _FULL:
            return StorageFull(f"the database cannot be written: {error}")
        if code == sqlite3.SQLITE_CONSTRAINT or isinstance(error, OverflowError):
            return Corrupt(f"the database refuses these facts: {error}")
        if code in _DAMAGED or _extended(error) == sqlite3.SQLITE_IOERR_SHORT_READ:
            return Refused(
                f"{self.path} is damaged, or no SQLite database ({error}): stop ncps, move"
                f" {self.path}, {self.path.name}-wal and {self.path.name}-shm elsewhere, and fill"
                " a new one from the store with `ncps rebuild`"
            )
        if code in _UNUSABLE:
            return Refused(
                f"{_SETTING}: {self.path} cannot be used as an SQLite database: {error}. ncps makes"
                f" the file itself; its directory: {remedy(_SETTING, None)}"
            )
        retry_after = 1.0 if code in _BUSY else None
        return Unavailable(f"the database does not answer: {error}", retry_after=retry_after)


@lru_cache(maxsize=256)
def _translate(statement: str) -> str:
    # There is only one writer, so rows need no lock.
    return statement.removesuffix(" FOR UPDATE")


def _extended(error: Exception) -> int:
    """Return the extended result code; 0 for an error of the driver itself."""
    return int(getattr(error, "sqlite_errorcode", 0))


def _code(error: Exception) -> int:
    return _extended(error) & 0xFF
