"""LocalDatabase: interactions with SQLite through adbapi, one writer and several readers.

A write interaction runs inside BEGIN IMMEDIATE on the only writing connection, so writers queue
and never collide. Writes that wait at the same time share one transaction, and its sync.

Point reads run on the reactor's thread, on a read-only connection: they take 8 microseconds, a call
in a thread 70. Only this module makes that choice. In WAL mode readers do not wait for the writer.
In the rare case when they would (recovery after a crash of another process), a point read runs in a
thread instead of blocking the reactor.

A backup or a forgotten shell may lock the database for hours. Then a write fails after
`PATIENCE_S`, and the writes behind it soon after that. `ncps.cache` also serves a narinfo or NAR
that it cannot record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import uniform
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import quote

from twisted.enterprise.adbapi import ConnectionPool
from twisted.logger import Logger

from ncps.aio.grouping import MOST, Grouping
from ncps.aio.waiting import sleep
from ncps.database.dialects.base import Transaction, Trouble, translated
from ncps.database.dialects.sqlite import SQLite
from ncps.database.keyed_read import K, KeyedRead, V
from ncps.database.pool import Database
from ncps.database.together import Write, write_together
from ncps.database.walguard import WalCut, WalGuard
from ncps.errors import Unavailable
from ncps.observe.log_queue import settle
from ncps.observe.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")

READERS: Final = 3
PATIENCE_S: Final = 5.0
"""Seconds that a write waits for a lock of another process; a client may wait for the write."""
SHORT_PATIENCE_S: Final = 0.2
"""Seconds that a write waits if the write before it waited in vain."""
WAIT_S: Final = 0.1
"""Seconds that SQLite waits for a lock in one attempt; other calls wait for its thread."""
PAUSE_S: Final = 0.05
OPEN_ATTEMPTS: Final = 20
"""Attempts to open a locked file, each of `WAIT_S` and `PAUSE_S`: 3 s in all."""


_log = Logger()


def end_at_once(reason: str) -> None:
    """End the process without closing connections: a close makes a harmful checkpoint."""
    _log.critical(
        "{reason}, which no other program may change: this process ends immediately, and the next"
        " start continues without the missing transactions",
        reason=reason,
    )
    settle()
    os._exit(1)


class LocalDatabase(Database):
    """A database of SQLite.

    :param reactor: `IReactorTime`, `IReactorThreads` and `IReactorCore`.
    :param end: ends the process if another program has changed the database or its log.
    :param most: writes of one transaction, at most.
    """

    def __init__(
        self,
        reactor: Any,
        dialect: SQLite,
        metrics: Metrics,
        end: Callable[[str], object] = end_at_once,
        *,
        most: int = MOST,
    ) -> None:
        self._reactor = reactor
        self._dialect = dialect
        self._seconds = metrics.database_seconds
        self._writer: ConnectionPool | None = None
        self._readers: ConnectionPool | None = None
        self._inline: Any = None
        self._is_locked = False
        self._end = end
        shared = metrics.short_ways("transaction").inc
        self._writes: Grouping[Write, Any] = Grouping(self._write_all, most=most, shared=shared)
        self._guard = WalGuard(dialect.path)

    def open(self) -> None:
        self._inline = _opened_blocking(self._dialect)
        try:
            self._guard.open()
        except OSError as error:
            raise Unavailable(f"{self._dialect.path} cannot be read: {error.strerror}") from error
        self._writer = self._pool(1, read_only=False)
        self._readers = self._pool(READERS, read_only=True)

    def _pool(self, size: int, *, read_only: bool) -> ConnectionPool:
        pool = ConnectionPool(
            "sqlite3",
            # With `rw`, SQLite does not make a removed file again: opening fails.
            f"file:{quote(str(self._dialect.path))}?mode=rw",
            uri=True,
            cp_min=0,
            cp_max=size,
            cp_noisy=False,
            cp_reactor=self._reactor,
            cp_openfun=lambda connection: self._set_up(connection, read_only=read_only),
            **self._dialect.arguments,
        )
        pool.start()
        return pool

    def _set_up(self, connection: Any, *, read_only: bool) -> None:
        self._guard.check_database()  # else SQLite could read this log into another database
        connection.execute(f"PRAGMA busy_timeout = {int(WAIT_S * 1000)}")
        self._dialect.set_up(connection, read_only=read_only)

    def close(self) -> None:
        for pool in (self._readers, self._writer):
            if pool is not None:
                pool.close()
        if self._inline is not None:
            self._inline.close()
            self._guard.close()
        self._readers = self._writer = self._inline = None

    async def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        since = self._reactor.seconds()
        try:
            if self._inline is None:
                raise Unavailable("the database is not open")
            return function(self._inline, *args, **kwargs)
        except self._dialect.errors as error:
            if self._dialect.trouble(error) is Trouble.FINAL:
                raise translated(self._dialect, error) from error
        finally:
            self._seconds("point").observe(self._reactor.seconds() - since)
        return await self.read(function, *args, **kwargs)

    async def look_up(self, lookup: KeyedRead[K, V], key: K) -> V | None:
        return await self.point(lookup.one, key)

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        since = self._reactor.seconds()

        def guarded(_connection: Any, txn: Transaction) -> R:
            self._guard.check_database()  # a process that only reads must notice as well
            return function(txn, *args, **kwargs)

        try:
            return await self._run(self._readers, self._dialect.begin_read, guarded)
        except WalCut as cut:
            self._end(str(cut))
            raise Unavailable(str(cut)) from cut
        finally:
            self._seconds("read").observe(self._reactor.seconds() - since)

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        write = Write(lambda txn: function(txn, *args, **kwargs))
        return cast("R", await self._written(write))

    async def write_settled(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        write = Write(lambda txn: function(txn, *args, **kwargs), is_settled=True)
        return cast("R", await self._written(write))

    async def settle(self) -> None:
        await self._writes.add(Write(None, is_settled=True))

    async def _written(self, write: Write) -> Any:
        since = self._reactor.seconds()
        try:
            return await self._writes.add(write)
        finally:
            self._seconds("write").observe(self._reactor.seconds() - since)

    async def _write_all(self, writes: Sequence[Write]) -> Sequence[Any]:
        """Make writes in one transaction; return the result or the error of each."""
        has_rows = any(write.function is not None for write in writes)
        begin = self._dialect.begin_write if has_rows else ()
        try:
            outcomes = await self._run(self._writer, begin, partial(self._write_blocking, writes))
        except WalCut as cut:
            self._end(str(cut))
            raise Unavailable(str(cut)) from cut
        return outcomes

    def _write_blocking(
        self, writes: Sequence[Write], connection: Any, txn: Transaction
    ) -> Sequence[Any]:
        if connection.in_transaction:
            self._guard.check()
        made = write_together(connection, txn, writes, self._fault_blocking)
        connection.commit()
        outcomes = _translated(self._dialect, made)
        if not any(write.is_settled for write in writes):
            return outcomes
        trouble = _sync_blocking(f"{self._dialect.path}-wal")
        if trouble is None:
            return outcomes
        return [
            trouble if write.is_settled and not isinstance(outcome, Exception) else outcome
            for write, outcome in zip(writes, outcomes, strict=True)
        ]

    def _fault_blocking(self, error: Exception) -> None:
        """Check after an error of the engine whether the database still exists."""
        if isinstance(error, self._dialect.errors):
            self._guard.check_database()  # a missing file causes many kinds of errors

    async def _run(
        self,
        pool: ConnectionPool | None,
        begin: Sequence[str],
        work: Callable[[Any, Transaction], R],
    ) -> R:
        """Run an interaction; repeat it while another process holds a lock.

        :param work: called with the connection and the transaction.
        """
        until = self._reactor.seconds() + (SHORT_PATIENCE_S if self._is_locked else PATIENCE_S)

        def interaction(connection: Any) -> R:
            if self._is_locked and self._reactor.seconds() >= until:
                raise Unavailable("the database is locked by another process", retry_after=1.0)
            cursor = connection.cursor()
            txn = Transaction(cursor, self._dialect.translate)
            for statement in begin:
                txn.execute(statement)
            result = work(connection, txn)
            cursor.close()
            return result

        while True:
            if pool is None or not pool.running:
                raise Unavailable("the database is not open")
            try:
                result = cast("R", await pool.runWithConnection(interaction))
            except self._dialect.errors as error:
                if self._dialect.trouble(error) is Trouble.FINAL:
                    self._guard.check_database()  # a missing file causes many kinds of errors
                    raise translated(self._dialect, error) from error
                if self._reactor.seconds() >= until:
                    self._is_locked = True
                    raise translated(self._dialect, error) from error
            else:
                if pool is self._writer:  # a read succeeds even if the database is locked
                    self._is_locked = False
                return result
            await sleep(self._reactor, PAUSE_S * uniform(0.5, 1.5))  # noqa: S311 - jitter


def _translated(dialect: SQLite, outcomes: Sequence[Any]) -> Sequence[Any]:
    """Return outcomes with our errors in place of those of the engine."""
    return [
        translated(dialect, outcome) if isinstance(outcome, dialect.errors) else outcome
        for outcome in outcomes
    ]


def _opened_blocking(dialect: SQLite) -> Any:
    """Open a connection, read once, and make it wait for no lock from then on.

    Another worker that opens or closes the file at the same moment locks it for that time.
    """
    for attempt in range(OPEN_ATTEMPTS):
        connection: Any = None
        try:
            connection = dialect.connect(read_only=True, timeout_s=WAIT_S)
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA busy_timeout = 0")
        except dialect.errors as error:
            if connection is not None:
                connection.close()
            is_hopeless = dialect.trouble(error) is Trouble.FINAL
            if is_hopeless or attempt + 1 == OPEN_ATTEMPTS:
                raise dialect.translated(error) from error
        else:
            return connection
        time.sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _sync_blocking(path: str) -> Unavailable | None:
    """Sync the write-ahead log; return an error if that fails.

    Transactions that are no longer in the log are on the disk already. The log has no locks, so
    closing it here frees none.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unavailable(f"{path} cannot be synced: {error.strerror}")
    try:
        os.fdatasync(fd)  # its size is brought to disk, too; its times are of no use
    except OSError as error:
        return Unavailable(f"{path} cannot be synced: {error.strerror}")
    finally:
        os.close(fd)
    return None
