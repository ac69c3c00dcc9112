"""Dialect: what an engine must say of itself, and the SQL that is written for all of them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import field, frozen

from ncps.errors import NcpsError

Sleep = Callable[[float], object]
"""Waits so many seconds, blocking."""


class Trouble(enum.Enum):
    """What can be done about an error of a driver."""

    #: Another transaction was in the way: the whole interaction may be tried again.
    CONFLICT = "conflict"
    #: The connection is gone, or the server takes none now: again, on another connection.
    AWAY = "away"
    #: Nothing; it would fail again.
    FINAL = "final"


@frozen(kw_only=True)
class DatabaseServer:
    """A database on a server, and how long to wait for it.

    :param host: name or address; empty if `socket` is given.
    :param others: further hosts and ports, asked in turn; PostgreSQL.
    :param socket: PostgreSQL: directory of the socket; MySQL: the socket.
    :param user: empty for the name of the user of the operating system.
    :param password: None if the server wants none, or the driver knows where to look.
    :param options: of TLS and the session, by the dialect's own names.
    """

    host: str = ""
    port: int
    others: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    user: str
    password: str | None = field(default=None, repr=False)
    database: str
    options: dict[str, str] = field(factory=dict, repr=False)
    connect_timeout_s: float
    statement_timeout_s: float

    @property
    def where(self) -> str:
        """Where it is, for messages; without the password."""
        places = ((self.host, self.port), *self.others)
        place = self.socket or ", ".join(_written(host, port) for host, port in places)
        user = f" as {self.user!r}" if self.user else ""
        return f"{self.database!r} at {place}{user}"


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Dialect(Protocol):
    """One engine and one database of it.

    Our SQL is written once, in what the engines have in common, with `?` for parameters and these
    liberties, which `translate` turns into what the engine calls them:

    - `INSERT ... ON CONFLICT DO NOTHING`, which says nothing of how many rows it inserted;
    - `INSERT ... ON CONFLICT (columns) DO UPDATE SET column = excluded.column, ...`;
    - `SELECT ... FOR UPDATE`.
    """

    name: str
    """Of the directory with its schema."""
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
        """The database as messages call it."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""

    def connect(self) -> Any:
        """Connect, ready for transactions; blocks. Raises `errors`. The caller closes it."""

    def inspect(self) -> Any | None:
        """Connect to look at what is there, changing nothing; None if there is nothing yet.

        Raises `errors`, Refused.
        """

    def prepare(self) -> None:
        """Make what must be there before the first connection. Refused."""

    def alone(self, connection: Any, sleep: Sleep) -> AbstractContextManager[object]:
        """Keep other processes from migrating the same database meanwhile. Unavailable."""

    def translate(self, statement: str) -> str:
        """Our SQL in the words of the engine."""

    def tables(self, connection: Any) -> set[str]:
        """Names of the tables in the database."""

    def columns(self, connection: Any, table: str) -> set[str]:
        """Names of the columns of a table; none if there is no such table."""

    def is_done_already(self, error: Exception) -> bool:
        """Whether a statement of a migration failed because it had been executed before.

        Asked only where migrations cannot be taken back.
        """

    def trouble(self, error: Exception) -> Trouble:
        """What can be done about an error."""

    def translated(self, error: Exception) -> NcpsError:
        """Our error for the driver's; what it says is fit for an operator."""


class Transaction:
    """What functions get as `txn`: runs our SQL on a cursor of any driver.

    :param cursor: of the driver; its `fetchone` and `fetchall` are for whoever executed.
    """

    __slots__ = ("_cursor", "_translate")

    def __init__(self, cursor: Any, translate: Callable[[str], str]) -> None:
        self._cursor = cursor
        self._translate = translate

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Run one statement; return the cursor."""
        # Always with parameters: without, the drivers read no percent sign as one of two.
        self._cursor.execute(self._translate(statement), parameters)
        return self._cursor

    def executemany(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        if rows:
            self._cursor.executemany(self._translate(statement), rows)


def one_line(error: Exception) -> str:
    """What a driver says, without line breaks and not without end."""
    return " ".join(str(error).split())[:500]


class ServerDialect(Dialect, Protocol):
    """A dialect whose database is reached over a socket."""

    def file_number(self, connection: Any) -> int:
        """Number of the socket of an open connection."""
