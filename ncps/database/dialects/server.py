"""ServerDialect: the common part of the dialects of database servers."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attrs import field, frozen

from ncps.database.dialects.base import Dialect, Sleep, Transaction, Trouble, one_line
from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable

LOCK_PAUSE_S: Final = 0.1
GRACE_S: Final = 5.0
"""Seconds that the driver waits for an answer beyond the timeout of a statement."""


@frozen(kw_only=True)
class DatabaseServer:
    """A database on a server, with its timeouts.

    :param host: name or address; empty if `socket` is given.
    :param others: further hosts and ports, tried in turn; only PostgreSQL.
    :param socket: PostgreSQL: directory of the socket; MySQL: the socket.
    :param user: empty for the name of the user of the operating system.
    :param password: None if the server needs none, or the driver finds it.
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
        """The name and address of the database for messages; without the password."""
        places = ((self.host, self.port), *self.others)
        place = self.socket or ", ".join(_written(host, port) for host, port in places)
        user = f" as {self.user!r}" if self.user else ""
        return f"{self.database!r} at {place}{user}"


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ServerDialect(Dialect):
    """A dialect whose database has a server.

    A subclass connects, names the schema, and classifies the driver's errors.

    :param driver: the module of the driver.
    """

    lock_patience_s = 300.0
    """Seconds that other processes may take to migrate."""
    schema: str
    """The SQL expression for the schema of the session in `information_schema`."""
    full: frozenset[Any]
    """Codes of errors of a server that is full or read-only."""
    late: frozenset[Any]
    """Codes of statements that took too long."""
    refused: Mapping[Any, str]
    """Messages with the remedy for an operator, by code; with the fields `where` and `says`."""

    def __init__(self, server: DatabaseServer, driver: Any) -> None:
        self._server = server
        self._driver = driver

    @abstractmethod
    def file_number(self, connection: Any) -> int:
        """Return the number of the socket of an open connection."""

    @abstractmethod
    def _try_lock(self, connection: Any) -> bool:
        """Take the lock of migrations until the connection ends; False if it is taken."""

    @abstractmethod
    def _code(self, error: Exception) -> Any:
        """Return the code of an error of the driver; 0 or empty if it has none."""

    @abstractmethod
    def _is_corrupt(self, error: Exception) -> bool:
        """Return whether the server or the driver refuses the values of a statement."""

    def _says(self, error: Exception) -> str:
        """Return the message of the server or the driver in one line."""
        return one_line(error)

    def _prepare_migration(self, connection: Any) -> None:
        """Set up a connection that has the lock of migrations; the default does nothing."""

    @property
    def where(self) -> str:
        return self._server.where

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (self._driver.Error,)

    def inspect(self) -> Any:
        return self.connect()

    def prepare(self) -> None:
        """Make nothing: an administrator creates the database."""

    @contextmanager
    def alone(self, connection: Any, sleep: Sleep) -> Iterator[None]:
        end = time.monotonic() + self.lock_patience_s
        # Many attempts, because one long wait would exceed the timeout of a statement.
        while not self._try_lock(connection):
            if time.monotonic() > end:
                raise Unavailable(
                    f"another process has been migrating {self.where} for more than"
                    f" {self.lock_patience_s:.0f} s"
                )
            sleep(LOCK_PAUSE_S)
        self._prepare_migration(connection)
        yield  # the end of the connection frees the lock

    def tables(self, connection: Any) -> set[str]:
        return self._names(
            connection,
            "SELECT table_name FROM information_schema.tables"  # noqa: S608 - our own expression
            f" WHERE table_schema = {self.schema} AND table_type = 'BASE TABLE'",
        )

    def columns(self, connection: Any, table: str) -> set[str]:
        return self._names(
            connection,
            "SELECT column_name FROM information_schema.columns"  # noqa: S608 - our own expression
            f" WHERE table_schema = {self.schema} AND table_name = ?",
            table,
        )

    def _names(self, connection: Any, statement: str, *parameters: object) -> set[str]:
        with connection.cursor() as cursor:
            txn = Transaction(cursor, self.translate)
            return {name for (name,) in txn.execute(statement, parameters).fetchall()}

    def is_done_already(self, error: Exception) -> bool:
        return False

    def translated(self, error: Exception) -> NcpsError:
        code, says = self._code(error), self._says(error)
        if code in self.refused:
            return Refused(self.refused[code].format(where=self.where, says=says))
        if code in self.full:
            return StorageFull(f"the database cannot be written: {says}")
        if self._is_corrupt(error):
            return Corrupt(f"the database refuses these facts: {says}")
        if self.trouble(error) is Trouble.AWAY:
            return Unavailable(f"the database {self.where} does not answer: {says}", retry_after=5)
        is_late = code in self.late
        return Unavailable(f"the database fails: {says}", retry_after=1.0, timed_out=is_late)
