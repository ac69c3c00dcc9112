"""Database: interactions with SQLite through adbapi, one writer and several readers.

A write interaction runs inside BEGIN IMMEDIATE on the only writing connection, so writers queue
and never collide. Point reads run on the reactor's thread, on a read-only connection of their own:
8 microseconds against a thread hop of 70. That decision is made here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from random import uniform
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.task import deferLater

from ncps.database.dialects import SQLite
from ncps.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")

READERS = 3
ATTEMPTS = 3
PAUSE_S = 0.05


class Database:
    """Runs plain functions `(txn, ...) -> value`; raises Unavailable and StorageFull only."""

    def __init__(self, reactor: Any, dialect: SQLite) -> None:
        self._reactor = reactor
        self._dialect = dialect
        self._writer: ConnectionPool | None = None
        self._readers: ConnectionPool | None = None
        self._inline: Any = None

    def open(self) -> None:
        """Connect; Unavailable if that fails. The schema must be up to date already."""
        try:
            self._inline = self._dialect.connect(read_only=True)
        except self._dialect.errors as error:
            raise self._dialect.translated(error) from error
        self._writer = self._pool(1, read_only=False)
        self._readers = self._pool(READERS, read_only=True)

    def _pool(self, size: int, *, read_only: bool) -> ConnectionPool:
        pool = ConnectionPool(
            "sqlite3",
            str(self._dialect.path),
            cp_min=0,
            cp_max=size,
            cp_noisy=False,
            cp_reactor=self._reactor,
            cp_openfun=lambda connection: self._dialect.prepare(connection, read_only=read_only),
            **self._dialect.arguments,
        )
        pool.start()
        return pool

    def close(self) -> None:
        """Disconnect; what is under way ends first."""
        for pool in (self._readers, self._writer):
            if pool is not None:
                pool.close()
        if self._inline is not None:
            self._inline.close()
        self._readers = self._writer = self._inline = None

    def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a read of a few rows by index, here and now."""
        if self._inline is None:
            raise Unavailable("the database is not open")
        try:
            return function(self._inline, *args, **kwargs)
        except self._dialect.errors as error:
            raise self._dialect.translated(error) from error

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a read of any size in a thread."""
        return await self._run(self._readers, function, *args, **kwargs)

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one transaction; committed on return, rolled back on any error."""

        def interaction(txn: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
            txn.execute("BEGIN IMMEDIATE")
            return function(txn, *args, **kwargs)

        return await self._run(self._writer, interaction, *args, **kwargs)

    async def _run(
        self,
        pool: ConnectionPool | None,
        function: Callable[Concatenate[Any, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        for attempt in range(ATTEMPTS):
            if pool is None or not pool.running:
                raise Unavailable("the database is not open")
            try:
                return cast("R", await pool.runInteraction(function, *args, **kwargs))
            except self._dialect.errors as error:
                if not self._dialect.is_retryable(error) or attempt + 1 == ATTEMPTS:
                    raise self._dialect.translated(error) from error
            await deferLater(self._reactor, PAUSE_S * 2**attempt * uniform(0.5, 1.5))  # noqa: S311 - jitter
        raise AssertionError("unreachable")
