"""Connections: adbapi's pool, taught about servers that come and go.

adbapi keeps a connection per thread. What is changed here, and nowhere else:

- connections are made by the dialect, and what broke is replaced without tracebacks in the log;
- once one connection is found broken, all that were made before are replaced before their next
  use: a restart of the server costs the calls that were under way their first try, and no more;
- connections that were idle for long are replaced, as firewalls and servers forget them;
- of idle connections only so many are kept;
- a connection can be cut from another thread, where its own waits for a server that hangs.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeVar

from attrs import define
from twisted.enterprise.adbapi import Connection, ConnectionPool
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from ncps.database.dialects.base import ServerDialect, Transaction, Trouble
from ncps.errors import Unavailable

R = TypeVar("R")

MAX_IDLE_S: Final = 240.0
"""Longest time unused after which a connection is still trusted."""


@define
class _Kept:
    """What is known of an open connection.

    :ivar socket: the same as the driver's, for `Connections.cut`: the driver's own may be closed,
        and its number be another's, at any moment.
    :ivar epoch: how many breakdowns the pool had seen when it was made.
    :ivar since: when its last use ended, monotonic.
    """

    raw: Any
    socket: socket.socket
    epoch: int
    since: float


BORROWED: Final = (
    "twisted.enterprise.adbapi.Connection._connection",
    "twisted.enterprise.adbapi.Connection._pool",
    "twisted.enterprise.adbapi.ConnectionPool._close",
    "twisted.enterprise.adbapi.ConnectionPool._reactor",
    "twisted.enterprise.adbapi.ConnectionPool._runWithConnection",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class PooledConnection(Connection):
    """The connection of this thread, for the length of one call."""

    _pool: Connections
    _connection: Any

    def __init__(self, pool: Connections) -> None:
        self._is_begun = False
        super().__init__(pool)

    def begin(self, statements: Sequence[str]) -> Transaction:
        """Begin a transaction with these statements; with none, each statement is its own."""
        txn = Transaction(self._connection.cursor(), self._pool.dialect.translate)
        self._is_begun = bool(statements)
        for statement in statements:
            txn.execute(statement)
        return txn

    def commit(self) -> None:
        """Commit what was begun."""
        if self._is_begun:
            self._connection.commit()
            self._is_begun = False

    def rollback(self) -> None:
        """Take back what was begun; a connection that cannot do that is dropped, in silence.

        The error that led here is already on its way to the caller.
        """
        try:
            if self._is_begun:
                self._connection.rollback()
        except self._pool.dialect.errors:
            self._pool.drop(is_broken=True)
        self._is_begun = False


class Connections(ConnectionPool):
    """A pool of connections to one server.

    :param size: connections at most, each with a thread.
    :param idle: how many of them stay open while they have nothing to do.
    """

    connectionFactory = PooledConnection

    def __init__(self, reactor: Any, dialect: ServerDialect, *, size: int, idle: int) -> None:
        # The module only has to look like a driver: `connect` below never asks it.
        super().__init__("sqlite3", cp_min=0, cp_max=size, cp_noisy=False, cp_reactor=reactor)
        self.dialect = dialect
        self._idle = idle
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {}
        self._busy: set[int] = set()
        self._epoch = 0
        self._is_closing = False

    def connect(self) -> Any:
        """The connection of this thread, a new one if there is none or it is not to be trusted."""
        thread = self.threadID()
        with self._lock:
            self._busy.add(thread)
            kept = self._kept.get(thread)
            epoch = self._epoch
        if kept is not None:
            if kept.epoch == epoch and monotonic() - kept.since < MAX_IDLE_S:
                return kept.raw
            self.drop()
        raw = self.dialect.connect()
        same = socket.socket(fileno=os.dup(self.dialect.file_number(raw)))
        with self._lock:
            self._kept[thread] = _Kept(raw, same, epoch, monotonic())
            self.connections[thread] = raw
        return raw

    def drop(self, *, is_broken: bool = False) -> None:
        """Close the connection of this thread.

        :param is_broken: whether that was found in using it, so that others may be, too.
        """
        thread = self.threadID()
        with self._lock:
            kept = self._kept.pop(thread, None)
            self.connections.pop(thread, None)
            if is_broken and kept is not None and kept.epoch == self._epoch:
                self._epoch += 1
        if kept is not None:
            self._close(kept.raw)
            kept.socket.close()

    def finalClose(self) -> None:
        """See `ConnectionPool`."""
        super().finalClose()
        while self._kept:
            self._kept.popitem()[1].socket.close()

    def _close(self, conn: Any) -> None:
        with suppress(*self.dialect.errors, OSError):  # it was broken
            conn.close()

    def call(
        self,
        begin: Sequence[str],
        function: Callable[[Transaction], R],
        started: Callable[[int], object],
    ) -> Deferred[R]:
        """Run a function on a transaction in a thread. Fails with the driver's errors.

        :param started: told in the thread which one it is, for `cut`; may raise.
        """

        def work(connection: PooledConnection) -> R:
            return function(connection.begin(begin))

        return deferToThreadPool(self._reactor, self.threadpool, self._run, work, started)

    def _run(self, work: Callable[[Any], R], started: Callable[[int], object]) -> R:
        if self._is_closing:
            raise Unavailable("the database is closed")
        started(self.threadID())
        try:
            result: R = self._runWithConnection(work)
        except self.dialect.errors as error:
            if self.dialect.trouble(error) is Trouble.AWAY:
                self.drop(is_broken=True)
            raise
        finally:
            self._rest()
        return result

    def _rest(self) -> None:
        """The thread has nothing more to do; close its connection if enough others wait."""
        thread = self.threadID()
        with self._lock:
            self._busy.discard(thread)
            kept = self._kept.get(thread)
            if kept is not None:
                kept.since = monotonic()
            is_spare = len(self._kept.keys() - self._busy) > self._idle
        if is_spare:
            self.drop()

    def cut(self, thread: int) -> None:
        """Break the connection of a thread that waits in vain; the thread gets an error."""
        with self._lock:
            kept = self._kept.get(thread) if thread in self._busy else None
            if kept is None:
                return
            with suppress(OSError):  # it is broken already
                kept.socket.shutdown(socket.SHUT_RDWR)

    def close_within(self, seconds: float) -> None:
        """Close, after waiting at most so long for what is under way; then it is cut off."""
        late = threading.Timer(seconds, self._cut_all)
        late.start()
        try:
            self.close()
        finally:
            late.cancel()

    def _cut_all(self) -> None:
        self._is_closing = True
        for thread in list(self._busy):
            self.cut(thread)
