"""Database: the interface that runs the functions of the catalog, on any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ncps.database.keyed_read import K, KeyedRead, V

P = ParamSpec("P")
R = TypeVar("R")


class Database(Protocol):
    """A database that runs plain functions `(txn, ...) -> value`.

    It may run a function again from its beginning. If a connection breaks at the moment of a
    commit, it does so even if the commit has succeeded: two runs must have the same result as one.

    Calls raise only errors of `ncps.errors`: Unavailable, StorageFull if nothing can be written,
    Corrupt if facts break a constraint, and the errors of the function. Cancelling a caller does
    not stop its call.
    """

    def open(self) -> None:
        """Accept calls from now on. Raises Unavailable, StorageFull or Refused if that fails.

        The schema must be up to date.
        """

    def close(self) -> None:
        """Disconnect; idempotent. This thread waits for the end of the calls under way.

        Calls are short; nevertheless stop all callers first.
        """

    async def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one statement that reads a few rows by index."""

    async def look_up(self, lookup: KeyedRead[K, V], key: K) -> V | None:
        """Read the value of one key; None if it has none.

        Calls that wait at the same time may share one statement. All their callers get an error of
        the statement; only the callers for its key get an error of a row. Cancelling one caller
        does not affect the others.
        """

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a read of any size in a thread; it sees one state of the database."""

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one transaction; committed on return, rolled back on any error.

        Calls that wait at the same time may share one transaction of the engine. Then the function
        sees the writes of the calls before it, and an error rolls back its own part only.

        A commit of SQLite survives the end of this process, but perhaps not a loss of power.
        """

    async def write_settled(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one transaction as `write` does, and then sync as `settle` does.

        If the sync fails, this raises Unavailable although the transaction is committed.
        """

    async def settle(self) -> None:
        """Sync: all earlier commits survive a loss of power on return."""
