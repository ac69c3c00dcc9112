"""Database: what the catalog runs its functions on, whatever the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Observer = Callable[[str, float], object]
"""Told of each finished call: "point", "read" or "write", and its seconds, waits included."""


class Database(Protocol):
    """Runs plain functions `(txn, ...) -> value`; raises errors of ours only.

    Functions may be run again from their beginning, and after a connection broke in the very
    moment of a commit also when that had succeeded: what they do must bear being done twice.

    Unavailable, StorageFull (writes), Corrupt (facts that break a constraint), and what the
    function itself raises. Cancelling the await of a call does not stop the call.
    """

    def open(self) -> None:
        """Make ready for calls; Unavailable, StorageFull or Refused if that fails.

        The schema must be up to date already.
        """

    def close(self) -> None:
        """Disconnect; idempotent. What is under way ends first, and this thread waits for it.

        Calls are short; still, close after whoever makes them has stopped.
        """

    async def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one statement that reads a few rows by index."""

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a read of any size in a thread, all of it on one state of the database."""

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one transaction; committed on return, rolled back on any error.

        SQLite's commits survive the death of this process, but perhaps not that of the machine.
        """

    async def settle(self) -> None:
        """Have all that was committed survive a loss of power, too."""
