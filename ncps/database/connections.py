"""Connections: threads with a connection each, to a server that may restart.

`twisted.enterprise.adbapi` also has threads with a connection each, but it imports the driver by
name, and trusts a connection for ever. Here the dialect makes connections, and:

- if one connection is broken, all older ones are replaced before their next use: a restart of the
  server fails only the first attempt of the calls under way;
- connections that were idle for `MAX_IDLE_S` are replaced, because firewalls and servers drop them;
- at most `idle` idle connections stay open;
- another thread can cut a connection whose own thread waits for a server that hangs.
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
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ncps.database.dialects.base import Transaction, Trouble
from ncps.database.dialects.server import ServerDialect
from ncps.errors import Unavailable

_log = Logger()

R = TypeVar("R")

MAX_IDLE_S: Final = 240.0
"""Seconds that a connection may be idle and still be used again."""


@define
class _Kept:
    """An open connection of one thread.

    :ivar socket: a duplicate of the driver's socket, for `Connections.cut`: the driver may close
        its own at any moment, and another file may get the same number.
    :ivar epoch: the number of restarts that the pool had noticed when the connection was made.
    :ivar since: when its last use ended, on a monotonic clock.
    """

    raw: Any
    socket: socket.socket
    epoch: int
    since: float


class Connections:
    """A pool of connections to one server, each with a thread.

    :param reactor: `IReactorThreads` and `IReactorCore`; its end closes the connections.
    :param size: connections, at most.
    :param idle: idle connections that stay open, at most.
    """

    def __init__(self, reactor: Any, dialect: ServerDialect, *, size: int, idle: int) -> None:
        self.dialect = dialect
        self.connections: dict[int, _Kept] = {}
        self.is_running = False
        self._reactor = reactor
        self._threads = ThreadPool(0, size, "database")
        self._at_end: Any = None
        self._idle = idle
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._epoch = 0
        self._is_closing = False

    def start(self) -> None:
        """Accept calls from now on; the first call that needs a connection makes it."""
        self._threads.start()
        self._at_end = self._reactor.addSystemEventTrigger("during", "shutdown", self._close_all)
        self.is_running = True

    def close(self) -> None:
        """Wait for the calls under way, then close all connections; idempotent."""
        if self.is_running:
            self._reactor.removeSystemEventTrigger(self._at_end)
            self._close_all()

    def _close_all(self) -> None:
        self.is_running = False
        self._threads.stop()
        while self.connections:
            self._close(self.connections.popitem()[1])

    def _connected(self) -> Any:
        """Return the connection of this thread; make a new one if it is missing or too old."""
        thread = threading.get_ident()
        with self._lock:
            self._busy.add(thread)
            kept = self.connections.get(thread)
            epoch = self._epoch
        if kept is not None:
            if kept.epoch == epoch and monotonic() - kept.since < MAX_IDLE_S:
                return kept.raw
            self.drop()
        raw = self.dialect.connect()
        same = socket.socket(fileno=os.dup(self.dialect.file_number(raw)))
        with self._lock:
            self.connections[thread] = _Kept(raw, same, epoch, monotonic())
        return raw

    def drop(self, *, is_broken: bool = False) -> None:
        """Close the connection of this thread.

        :param is_broken: whether its use failed, so that other connections may be broken as well.
        """
        thread = threading.get_ident()
        with self._lock:
            kept = self.connections.pop(thread, None)
            if is_broken and kept is not None and kept.epoch == self._epoch:
                self._epoch += 1
        if kept is not None:
            self._close(kept)

    def _close(self, kept: _Kept) -> None:
        with suppress(*self.dialect.errors, OSError):  # the connection was broken
            kept.raw.close()
        kept.socket.close()

    def call(
        self,
        begin: Sequence[str],
        function: Callable[[Transaction], R],
        started: Callable[[int], object],
    ) -> Deferred[R]:
        """Run a function on a transaction in a thread. Fails with the driver's errors.

        :param started: called in the thread with the thread's number, for `cut`; may raise.
        """
        return deferToThreadPool(
            self._reactor, self._threads, self._run_blocking, begin, function, started
        )

    def _run_blocking(
        self,
        begin: Sequence[str],
        function: Callable[[Transaction], R],
        started: Callable[[int], object],
    ) -> R:
        if self._is_closing:
            raise Unavailable("the database is closed")
        started(threading.get_ident())
        try:
            return self._transact(self._connected(), begin, function)
        except self.dialect.errors as error:
            if self.dialect.trouble(error) is Trouble.AWAY:
                self.drop(is_broken=True)
            raise
        finally:
            self._rest()

    def _transact(self, raw: Any, begin: Sequence[str], function: Callable[[Transaction], R]) -> R:
        """Run a function in a transaction; without `begin`, each statement is one transaction."""
        txn = Transaction(raw.cursor(), self.dialect.translate)
        try:
            for statement in begin:
                txn.execute(statement)
            result = function(txn)
            if begin:
                raw.commit()
        except BaseException:
            if begin:
                self._roll_back(raw)
            raise
        return result

    def _roll_back(self, raw: Any) -> None:
        """Roll back a transaction; drop the connection if that fails."""
        try:
            raw.rollback()
        except self.dialect.errors:
            self.drop(is_broken=True)
        except Exception:  # noqa: BLE001 - the caller raises the error before this one
            _log.failure("a rollback failed")
            self.drop()

    def _rest(self) -> None:
        """Mark this thread as idle; close its connection if enough others are idle."""
        thread = threading.get_ident()
        with self._lock:
            self._busy.discard(thread)
            kept = self.connections.get(thread)
            if kept is not None:
                kept.since = monotonic()
            is_spare = len(self.connections.keys() - self._busy) > self._idle
        if is_spare:
            self.drop()

    def cut(self, thread: int) -> None:
        """Cut the connection of a thread that waits for the server; the thread gets an error."""
        with self._lock:
            kept = self.connections.get(thread) if thread in self._busy else None
            if kept is None:
                return
            with suppress(OSError):  # the connection is broken already
                kept.socket.shutdown(socket.SHUT_RDWR)

    def close_within(self, seconds: float) -> None:
        """Close the pool; cut the calls that still run after `seconds`."""
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
