"""Dialect: the differences of an engine, and the SQL that is written once for all engines."""

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

    #: Another transaction was in the way: the whole interaction may be tried again.
    CONFLICT = "conflict"
    #: The connection is gone, or the server takes none now: again, on another connection.
    AWAY = "away"
    #: Nothing; it would fail again.
    FINAL = "final"


class Dialect(Protocol):
    """One engine and one database of it.

    Our SQL is written once, in what the engines have in common, with `?` for parameters and these
    liberties, which `translate` turns into what the engine calls them:

    - `INSERT ... ON CONFLICT DO NOTHING`, which does not tell how many rows it inserted;
    - `INSERT ... ON CONFLICT (columns) DO UPDATE SET column = excluded.column, ...`;
    - `SELECT ... FOR UPDATE`.
    """

    name: str
    """Name of the directory with its schema."""
    has_transactional_ddl: bool
    """Whether a migration can be taken back as a whole."""
    begin_read: Sequence[str]
    """Statements that begin a transaction that sees one state of the database and changes none."""
    begin_write: Sequence[str]
    """Statements that begin a transaction that sees what others have committed."""
    begin_migration: Sequence[str]
    """Statements before the statements of a migration."""

    @property
    def where(self) -> str:
        """The name of the database in messages."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The errors that the driver raises."""

    def connect(self) -> Any:
        """Connect, ready for transactions; blocks. Raises one of `errors`. The caller closes it."""

    def inspect(self) -> Any | None:
        """Connect to look at the database, changing nothing; None if there is none yet.

        Raises one of `errors`, or Refused if it cannot be a database.
        """

    def prepare(self) -> None:
        """Make the place of the database. Raises Refused if that is not possible."""

    def alone(self, connection: Any, sleep: Sleep) -> AbstractContextManager[object]:
        """Keep other processes from migrating the same database meanwhile.

        Raises Unavailable if another process does so for too long.
        """

    def translate(self, statement: str) -> str:
        """Translate our SQL into that of the engine."""

    def tables(self, connection: Any) -> set[str]:
        """Return the names of the tables in the database."""

    def columns(self, connection: Any, table: str) -> set[str]:
        """Return the names of the columns of a table; none if there is no such table."""

    def is_done_already(self, error: Exception) -> bool:
        """Return whether a statement of a migration failed because it had been executed before.

        Asked only where migrations cannot be taken back.
        """

    def trouble(self, error: Exception) -> Trouble:
        """Return the remedy for an error."""

    def translated(self, error: Exception) -> NcpsError:
        """Return our error for the driver's, with a message for an operator."""


class Transaction:
    """The `txn` of functions: runs our SQL on a cursor of any driver.

    :param cursor: of the driver; the functions call its `fetchone` and `fetchall`.
    """

    __slots__ = ("_cursor", "_translate")

    def __init__(self, cursor: Any, translate: Callable[[str], str]) -> None:
        self._cursor = cursor
        self._translate = translate

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Run one statement; return the cursor."""
        # Always with parameters: without them, the drivers do not read `%%` as one percent sign.
        self._cursor.execute(self._translate(statement), parameters)
        return self._cursor

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        if rows:
            self._cursor.executemany(self._translate(statement), rows)


def translated(dialect: Dialect, error: Exception) -> NcpsError:
    """Return our error for the driver's while the database runs: it does not blame the request."""
    found = dialect.translated(error)
    return Unavailable(str(found)) if isinstance(found, Refused) else found


def one_line(error: Exception) -> str:
    """Return the message of a driver in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500]
