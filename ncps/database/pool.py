"""Database: runs the functions of the catalog, on any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ncps.database.keyed_read import K, KeyedRead, V

P = ParamSpec("P")
R = TypeVar("R")


class Database(Protocol):
    """Runs plain functions `(txn, ...) -> value`; raises errors of ours only.

    A function may be run again from its beginning. If a connection breaks in the very moment of a
    commit, this happens even after the commit has succeeded: a function must bear being run twice.

    Calls raise Unavailable, StorageFull if nothing can be written, Corrupt if facts break a
    constraint, and the errors of the function. Cancelling the await of a call does not stop it.
    """

    def open(self) -> None:
        """Make ready for calls. Raises Unavailable, StorageFull or Refused if that fails.

        The schema must be up to date already.
        """

    def close(self) -> None:
        """Disconnect; idempotent. This thread waits for the end of the calls under way.

        Calls are short; still, stop the parts that make them first.
        """

    async def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one statement that reads a few rows by index."""

    async def look_up(self, lookup: KeyedRead[K, V], key: K) -> V | None:
        """Read the value of one key; None if it has none.

        Several that wait at the same time may be one statement. An error of the statement is that
        of all their callers, one of a row that of the caller for its key. Cancelling one leaves the
        others alone.
        """

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a read of any size in a thread, all of it on one state of the database."""

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one transaction; committed on return, rolled back on any error.

        Several that wait at the same time may be one transaction for the engine; then the function
        sees what those before it have written, and an error takes back its own part alone.

        SQLite's commits survive the death of this process, but perhaps not that of the machine.
        """

    async def write_settled(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """As `write`, and then as `settle`, in one step.

        If the second part fails, the transaction is committed although this raises Unavailable.
        """

    async def settle(self) -> None:
        """Make everything that was committed survive a loss of power, too."""
