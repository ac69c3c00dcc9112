"""Dialect: the differences of an engine, and the SQL that all engines have in common."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ncps.errors import NcpsError, Refused, Unavailable

Sleep = Callable[[float], object]
"""Blocks for a number of seconds."""


class Trouble(enum.Enum):
    """The remedies for an error of a driver."""

    #: Another transaction was in conflict: try the whole interaction again.
    CONFLICT = "conflict"
    #: The connection is broken, or the server accepts none now: try again on another connection.
    AWAY = "away"
    #: There is no remedy: another attempt would fail as well.
    FINAL = "final"


class Dialect(Protocol):
    """One engine and one database of it.

    The SQL of ncps uses the common part of all engines, with `?` for parameters, and these
    extensions, which `translate` rewrites for the engine:

    - `INSERT ... ON CONFLICT DO NOTHING`, which does not say how many rows it inserted;
    - `INSERT ... ON CONFLICT (columns) DO UPDATE SET column = excluded.column, ...`;
    - `SELECT ... FOR UPDATE`.
    """

    name: str
    """Name of the directory with its schema."""
    has_transactional_ddl: bool
    """Whether the engine can roll back a whole migration."""
    begin_read: Sequence[str]
    """Statements that begin a read-only transaction on one state of the database."""
    begin_write: Sequence[str]
    """Statements that begin a transaction that sees the commits of others."""
    begin_migration: Sequence[str]
    """Statements before the statements of a migration."""

    @property
    def where(self) -> str:
        """The name of the database in messages."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The errors that the driver raises."""

    def connect(self) -> Any:
        """Return a new connection; the caller closes it. Blocks. Raises one of `errors`."""

    def inspect(self) -> Any | None:
        """Return a connection for reading, and change nothing; None if there is no database yet.

        Raises one of `errors`, or Refused if it cannot be a database.
        """

    def prepare(self) -> None:
        """Make the directory of the database. Raises Refused if that is not possible."""

    def alone(self, connection: Any, sleep: Sleep) -> AbstractContextManager[object]:
        """Keep other processes from migrating the database within the block.

        Raises Unavailable if another process migrates for too long.
        """

    def translate(self, statement: str) -> str:
        """Return a statement in the SQL of the engine."""

    def tables(self, connection: Any) -> set[str]:
        """Return the names of the tables in the database."""

    def columns(self, connection: Any, table: str) -> set[str]:
        """Return the names of the columns of a table; none if there is no such table."""

    def is_done_already(self, error: Exception) -> bool:
        """Return whether a statement of a migration failed because it had been executed before.

        Called only if migrations cannot be rolled back.
        """

    def trouble(self, error: Exception) -> Trouble:
        """Return the remedy for an error."""

    def translated(self, error: Exception) -> NcpsError:
        """Return the error of `ncps.errors` for one of the driver, with a message for operators."""


class Transaction:
    """The `txn` of functions: it runs statements on a cursor of any driver.

    :param cursor: of the driver; the functions call its `fetchone` and `fetchall`.
    """

    __slots__ = ("_cursor", "_translate")

    def __init__(self, cursor: Any, translate: Callable[[str], str]) -> None:
        self._cursor = cursor
        self._translate = translate

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Run one statement; return the cursor."""
        # Always with parameters: without them the drivers do not convert `%%` to one percent sign.
        self._cursor.execute(self._translate(statement), parameters)
        return self._cursor

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        if rows:
            self._cursor.executemany(self._translate(statement), rows)


def translated(dialect: Dialect, error: Exception) -> NcpsError:
    """Return the error for one of the driver during a request: Unavailable instead of Refused."""
    found = dialect.translated(error)
    return Unavailable(str(found)) if isinstance(found, Refused) else found


def one_line(error: Exception) -> str:
    """Return the message of a driver in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500]
