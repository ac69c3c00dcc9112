"""PostgresSessions: one session of the database with a `Keeper`; it asks one question at a time.

The driver blocks, so it runs in its own thread. The reactor watches the socket, and so notices
messages of other replicas, and the end of the session, between two questions.

A thread that waits for an answer cannot be stopped, but its socket can be shut down. So if a server
stalls, the session ends, and with it all its locks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.tasks import Tasks
from ncps.aio.threads import Workers
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.keeper import ATTEMPTS, Keeper, Server

T = TypeVar("T")

SLOW_S = 1.0
"""Seconds of waiting for an answer after which `current` raises Unavailable."""


class Engine(Protocol):
    """The part of a dialect in `ncps.database` that sessions need; its methods block.

    :ivar where: for messages.
    :ivar errors: classes of the driver's errors, for `translated`.
    """

    @property
    def where(self) -> str: ...

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...

    def connect(self) -> Any:
        """Return a connection of psycopg in autocommit mode. Raises Refused or one of `errors`."""

    def translated(self, error: Exception) -> NcpsError:
        """Return the error of `ncps.errors` for one of the driver."""


class SessionListener(Protocol):
    """The part that keeps leases in sessions."""

    def greet_blocking(self, connection: Any) -> None:
        """Prepare a new connection, in the thread. Raises Refused if it is unusable for leases."""

    def connected(self, is_first: bool) -> None:
        """See `ncps.locks.keeper.Server`."""

    def received(self, channel: str, text: str) -> None:
        """React to a text that came through a channel."""


@frozen(kw_only=True)
class Times:
    """The deadlines of a session, in seconds.

    :param deadline_s: the session ends if an answer takes longer.
    :param ping_s: the interval of checks.
    :param now: returns seconds on a monotonic clock.
    """

    deadline_s: float
    ping_s: float
    now: Callable[[], float]


@implementer(IReadDescriptor)
class SocketWatch:
    """A duplicate of a session's socket, because the driver may close its own at any time.

    :param ready: called when there is data to read, or the other side has closed the connection.
    """

    def __init__(self, reactor: Any, fd: int, ready: Callable[[], None]) -> None:
        self._reactor = reactor
        self._socket = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
        self._ready = ready

    def listen(self, is_wanted: bool) -> None:
        """Begin or stop to call `ready`."""
        if is_wanted:
            self._reactor.addReader(self)
        else:
            self._reactor.removeReader(self)

    def shut(self) -> None:
        """Shut the connection down, so that a thread that waits for the server gets an error."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget the socket; idempotent."""
        if self._socket.fileno() != -1:
            self.listen(False)
            self._socket.close()

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        self.listen(False)
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`; called when the reactor stops."""

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "PostgreSQL session"


class PostgresSession:
    """One session, from its opening to its end; the thread asks its questions.

    :ivar ended: fires with the reason when the session has ended.
    :ivar confirmed: when the newest answered question was sent, by `Times.now`.
    """

    def __init__(self, sessions: PostgresSessions, connection: Any) -> None:
        self.ended: Deferred[NcpsError] = Deferred()
        self.confirmed = sessions.times.now()
        self._sessions = sessions
        self._times = sessions.times
        self._connection = connection
        self._socket = SocketWatch(sessions.reactor, connection.fileno(), self._readable)
        self._is_dead = False
        self._was_too_late = False
        self._asked: list[float] = []
        self._timer: Any = None
        self._watch()

    @property
    def is_dead(self) -> bool:
        """Whether the session has ended, and with it all its locks."""
        return self._is_dead

    @property
    def waited_s(self) -> float:
        """Seconds since the oldest unanswered question; 0.0 if there is none."""
        return self._times.now() - self._asked[0] if self._asked else 0.0

    async def run(self, ask: Callable[[Any], T]) -> T:
        """Call a function with the connection, in the thread; return its result.

        Raises Unavailable if the session has ended.
        """
        if self._is_dead:
            raise Unavailable(f"the session of {self._sessions.where} has ended")
        sent = self._times.now()
        self._asked.append(sent)
        self._watch()
        try:
            result, notes = await self._sessions.workers.run(self._ask_blocking, ask)
        except NcpsError:
            raise
        except self._sessions.engine.errors as error:
            raise self._failed(error) from error
        finally:
            self._asked.remove(sent)
            self._watch()
        self.confirmed = max(self.confirmed, sent)
        for channel, text in notes:
            self._sessions.listener.received(channel, text)
        return result

    def _ask_blocking(self, ask: Callable[[Any], T]) -> tuple[T, list[tuple[str, str]]]:
        result = ask(self._connection)
        notes = [(note.channel, note.payload) for note in self._connection.notifies(timeout=0)]
        return result, notes

    def _failed(self, error: Exception) -> NcpsError:
        translated = self._sessions.engine.translated(error)
        if not self._connection.closed and not self._connection.broken:
            return translated
        self.end(translated)
        return Unavailable(
            str(translated), retry_after=ATTEMPTS.longest_s, timed_out=self._was_too_late
        )

    def _watch(self) -> None:
        """Watch the socket between questions; end the session if an answer takes too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_dead:
            return
        if self._asked:
            late = self._asked[0] + self._times.deadline_s - self._times.now()
            self._timer = self._sessions.reactor.callLater(max(0.0, late), self._late)
        self._socket.listen(not self._asked)

    def _late(self) -> None:
        self._timer = None
        self._was_too_late = True
        self.end(
            Unavailable(
                f"{self._sessions.where} does not answer within {self._times.deadline_s:g}s",
                timed_out=True,
            )
        )

    def _readable(self) -> None:
        """Read data that came between questions: messages, or the end."""
        self._sessions.tasks.start("read messages", self._read())

    async def _read(self) -> None:
        try:
            await self.run(lambda _connection: None)
        except NcpsError as error:
            self.end(error)

    def end(self, reason: NcpsError) -> None:
        """End the session, and with it all its locks; idempotent."""
        if self._is_dead:
            return
        self._is_dead = True
        self._socket.listen(False)
        self._socket.shut()
        self._watch()
        # The caller may run in a task that is cancelled when `ended` fires.
        self._sessions.reactor.callLater(0, self._fire, reason)

    def _fire(self, reason: NcpsError) -> None:
        if not self.ended.called:
            self.ended.callback(reason)

    async def close(self) -> None:
        """End the session; close the connection when the thread has finished. Idempotent."""
        self.end(Unavailable("disconnected"))
        with suppress(NcpsError, *self._sessions.engine.errors):
            await self._sessions.workers.run(self._connection.close)
        self._socket.close()


class PostgresSessions(Server[PostgresSession]):
    """The session of this process, with its thread.

    :param listener: learns of new sessions and of messages on channels.
    :param times: deadlines.
    :param subject: the consequence for users while the server is away, for the log.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        listener: SessionListener,
        *,
        times: Times,
        subject: str,
    ) -> None:
        self.reactor = reactor
        self.engine = engine
        self.listener = listener
        self.times = times
        self.tasks = Tasks(reactor)
        self.workers = Workers(reactor, "leases", 1)
        self._subject = subject
        self._fresh: Any = None
        self._keeper = Keeper(reactor, self, check_s=times.ping_s)

    @property
    def where(self) -> str:
        """The name of the database, for messages."""
        return self.engine.where

    @property
    def trouble(self) -> str:
        """The reason why the session takes no question now; empty if it does or may soon."""
        if self._keeper.trouble:
            return self._keeper.trouble
        session = self._keeper.connection
        waited_s = session.waited_s if session is not None else 0.0
        if waited_s > SLOW_S:
            return f"{self.where} has not answered for {waited_s:.0f}s"
        return ""

    async def start(self) -> None:
        """Connect, now or as soon as the server answers.

        Raises Refused if the configuration cannot work.
        """
        self.workers.start()
        try:
            await self._keeper.start()
        except Refused:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect."""
        await self._keeper.stop()
        await self.tasks.stop(0.0)
        await self.workers.stop(self.times.deadline_s)
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.close()

    async def current(self) -> PostgresSession:
        """Return the session; wait until it is up.

        Raises Unavailable if the server is away, or has not answered an earlier question.
        """
        session = await self._keeper.current()
        trouble = self.trouble
        if trouble:
            raise Unavailable(trouble, retry_after=ATTEMPTS.longest_s)
        return session

    async def connect(self) -> PostgresSession:
        await self.workers.run(self._connect_blocking)
        connection, self._fresh = self._fresh, None
        return PostgresSession(self, connection)

    def _connect_blocking(self) -> None:
        """Put a new connection into `_fresh`; `stop` closes it there if the task is cancelled."""
        try:
            connection = self.engine.connect()
            try:
                self.listener.greet_blocking(connection)
            except BaseException:
                connection.close()
                raise
        except self.engine.errors as error:
            raise self.engine.translated(error) from error
        self._fresh = connection

    async def check(self, connection: PostgresSession) -> None:
        await connection.run(lambda driver: driver.execute("SELECT 1"))

    def connected(self, is_first: bool) -> None:
        self.listener.connected(is_first)

    def lost(self, reason: NcpsError) -> None:
        self._log.warn(
            "the session with the leases in {where} has ended, the leases are lost: {reason}",
            where=self.where,
            reason=str(reason),
        )

    def went_away(self, reason: NcpsError) -> None:
        self._log.warn("{subject}: {reason}", subject=self._subject, reason=str(reason))

    def came_back(self) -> None:
        self._log.info("{where} grants leases again", where=self.where)
