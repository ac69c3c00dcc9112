"""LocalDatabase: interactions with SQLite through adbapi, one writer and several readers.

A write interaction runs inside BEGIN IMMEDIATE on the only writing connection, so writers queue
and never collide. Point reads run on the reactor's thread, on a read-only connection of their own:
8 microseconds against a thread hop of 70. That decision is made here and nowhere else. In WAL mode
readers never wait for the writer; in the rare moment when they would (recovery after a crash of
another process), a point read goes the way of the others instead of holding up the reactor.

A backup or a forgotten shell may lock the database for hours. A write then fails after `PATIENCE_S`
and those behind it soon after; what cannot be written is served all the same (`ncps.cache`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from random import uniform
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import quote

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.database.dialects.base import Transaction, Trouble
from ncps.database.dialects.sqlite import SQLite
from ncps.database.pool import Database, Observer
from ncps.database.walguard import WalCut, WalGuard
from ncps.errors import Refused, Unavailable
from ncps.observe.log_queue import settle

P = ParamSpec("P")
R = TypeVar("R")

READERS: Final = 3
PATIENCE_S: Final = 5.0
"""How long a lock of another process is waited for: clients wait for that, too."""
SHORT_PATIENCE_S: Final = 0.2
"""The same while the last write waited in vain, so that not every one takes that long."""
WAIT_S: Final = 0.1
"""How long a connection waits by itself, which keeps the others that want its thread."""
PAUSE_S: Final = 0.05
OPEN_ATTEMPTS: Final = 20
"""How often a locked file is opened, `WAIT_S` and `PAUSE_S` for each attempt: 3 s in all."""


_log = Logger()


def end_at_once(reason: str) -> None:
    """End the process before anything, a checkpoint at the close included, makes it worse."""
    _log.critical(
        "{reason}, which nothing but ncps may touch: this process ends at once, and the next start"
        " goes on without the transactions that are missing",
        reason=reason,
    )
    settle()
    os._exit(1)


class LocalDatabase(Database):
    """See `Database`.

    :param reactor: `IReactorTime`, `IReactorThreads` and `IReactorCore`.
    :param end: ends the process, where something else has touched the database or its log.
    """

    def __init__(
        self,
        reactor: Any,
        dialect: SQLite,
        observe: Observer = lambda _kind, _seconds: None,
        end: Callable[[str], object] = end_at_once,
    ) -> None:
        self._reactor = reactor
        self._dialect = dialect
        self._observe = observe
        self._writer: ConnectionPool | None = None
        self._readers: ConnectionPool | None = None
        self._inline: Any = None
        self._is_locked = False
        self._end = end
        self._guard = WalGuard(dialect.path)

    def open(self) -> None:
        self._inline = self._opened_blocking()
        try:
            self._guard.open()
        except OSError as error:
            raise Unavailable(f"{self._dialect.path} cannot be read: {error.strerror}") from error
        self._writer = self._pool(1, read_only=False)
        self._readers = self._pool(READERS, read_only=True)

    def _opened_blocking(self) -> Any:
        """Open a connection that has read something, and waits for no lock from then on.

        Who opens or closes the file at the same moment, as another worker may, has it for himself.
        """
        for attempt in range(OPEN_ATTEMPTS):
            connection: Any = None
            try:
                connection = self._dialect.connect(read_only=True, timeout_s=WAIT_S)
                connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                connection.execute("PRAGMA busy_timeout = 0")
            except self._dialect.errors as error:
                if connection is not None:
                    connection.close()
                is_hopeless = self._dialect.trouble(error) is Trouble.FINAL
                if is_hopeless or attempt + 1 == OPEN_ATTEMPTS:
                    raise self._dialect.translated(error) from error
            else:
                return connection
            time.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def _pool(self, size: int, *, read_only: bool) -> ConnectionPool:
        pool = ConnectionPool(
            "sqlite3",
            # Never made anew: a file that was removed is found missing.
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
        self._guard.check_database()  # before our log is read as that of another one
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
                raise self._translated(error) from error
        finally:
            self._observe("point", self._reactor.seconds() - since)
        return await self.read(function, *args, **kwargs)

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        since = self._reactor.seconds()

        def guarded(txn: Transaction) -> R:
            self._guard.check_database()  # who writes nothing is to find out, too
            return function(txn, *args, **kwargs)

        try:
            return await self._run(self._readers, self._dialect.begin_read, guarded)
        except WalCut as cut:
            self._end(str(cut))
            raise Unavailable(str(cut)) from cut
        finally:
            self._observe("read", self._reactor.seconds() - since)

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        since = self._reactor.seconds()

        def guarded(txn: Transaction) -> R:
            self._guard.check()
            return function(txn, *args, **kwargs)

        try:
            return await self._run(self._writer, self._dialect.begin_write, guarded)
        except WalCut as cut:
            self._end(str(cut))
            raise Unavailable(str(cut)) from cut
        finally:
            self._observe("write", self._reactor.seconds() - since)

    async def settle(self) -> None:
        pool, log = self._writer, f"{self._dialect.path}-wal"
        if pool is None or not pool.running:
            raise Unavailable("the database is not open")
        try:
            await pool.runWithConnection(lambda _connection: _sync_blocking(log))
        except OSError as error:
            raise Unavailable(f"{log} cannot be synced: {error.strerror}") from error

    async def _run(
        self,
        pool: ConnectionPool | None,
        begin: Sequence[str],
        function: Callable[Concatenate[Any, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run an interaction, again and again while another process holds a lock."""
        until = self._reactor.seconds() + (SHORT_PATIENCE_S if self._is_locked else PATIENCE_S)

        def interaction(cursor: Any) -> R:
            if self._is_locked and self._reactor.seconds() >= until:
                raise Unavailable("the database is locked by another process", retry_after=1.0)
            txn = Transaction(cursor, self._dialect.translate)
            for statement in begin:
                txn.execute(statement)
            return function(txn, *args, **kwargs)

        while True:
            if pool is None or not pool.running:
                raise Unavailable("the database is not open")
            try:
                result = cast("R", await pool.runInteraction(interaction))
            except self._dialect.errors as error:
                if self._dialect.trouble(error) is Trouble.FINAL:
                    self._guard.check_database()  # of a file that is gone there are many errors
                    raise self._translated(error) from error
                if self._reactor.seconds() >= until:
                    self._is_locked = True
                    raise self._translated(error) from error
            else:
                if pool is self._writer:  # reads go on beside a lock of writers
                    self._is_locked = False
                return result
            await deferLater(self._reactor, PAUSE_S * uniform(0.5, 1.5))  # noqa: S311 - jitter

    def _translated(self, error: Exception) -> Exception:
        found = self._dialect.translated(error)
        # What is refused at the start is an accident while running: it says nothing of a request.
        return Unavailable(str(found)) if isinstance(found, Refused) else found


def _sync_blocking(path: str) -> None:
    """Have the write-ahead log on the disk; what is in it no more is on the disk already.

    It bears no locks, so that closing it here frees none.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
