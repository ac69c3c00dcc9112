"""PostgresSession: one session of the database, kept up, on which everything is done in turn.

The driver blocks, so it has a thread of its own; the reactor watches the socket, so that messages
of other replicas, and the end of the session, are noticed while nothing is asked.

    joining ──► up ──► joining        as in `redis_link`
       └─────► away ─────┘

A thread that waits for a server without an answer cannot be told to stop, but its socket can be
shut: so a stalled server costs the session, and with it all that was locked in it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.tasks import Tasks
from ncps.aio.threads import Workers
from ncps.errors import NcpsError, Refused, Unavailable

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts to connect; each pause is twice the one before."""
SLOW_S = 1.0
"""While an answer takes longer than this, nothing more is asked."""


class Engine(Protocol):
    """The database, as its dialect in `ncps.database` knows it; blocks.

    :ivar where: for messages.
    :ivar errors: of the driver, and what they mean.
    """

    @property
    def where(self) -> str: ...

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...

    def connect(self) -> Any:
        """Return a connection of psycopg in autocommit mode. Refused, `errors`."""

    def translated(self, error: Exception) -> NcpsError: ...


Listener = Callable[[str, str], None]
"""Told of a channel and of what was said on it."""


@implementer(IReadDescriptor)
class Ear:
    """The socket of a session, doubled: the driver closes its own one when it pleases.

    :param ready: called when there is something to read, or the other side has gone.
    """

    def __init__(self, reactor: Any, fd: int, ready: Callable[[], None]) -> None:
        self._reactor = reactor
        self._socket = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
        self._ready = ready

    def listen(self, is_wanted: bool) -> None:
        """Say whether `ready` should be called."""
        if is_wanted:
            self._reactor.addReader(self)
        else:
            self._reactor.removeReader(self)

    def shut(self) -> None:
        """Let whoever waits for the server find it gone."""
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
        """See `IReadDescriptor`: the reactor stops."""

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "PostgreSQL session"


class Session:
    """One life of the connection; everything on the reactor's thread but what runs in `workers`.

    :ivar was_too_late: whether it ended because an answer took too long.
    :ivar confirmed: when the newest question was sent that was answered, by `now`.
    """

    def __init__(self, keeper: PostgresSessions, connection: Any) -> None:
        self.is_dead = False
        self.ended: Deferred[NcpsError] = Deferred()
        self.confirmed = keeper.now()
        self._keeper = keeper
        self._connection = connection
        self._ear = Ear(keeper.reactor, connection.fileno(), self._heard)
        self._asked: list[float] = []
        self._timer: Any = None
        self.was_too_late = False
        self._watch()

    @property
    def waits_since(self) -> float | None:
        """When the oldest question without an answer was asked."""
        return self._asked[0] if self._asked else None

    async def run(self, ask: Callable[[Any], T]) -> T:
        """Call a function with the connection, in the thread; return its result. Unavailable."""
        if self.is_dead:
            raise Unavailable(f"the session of {self._keeper.where} has ended")
        sent = self._keeper.now()
        self._asked.append(sent)
        self._watch()
        try:
            result, notes = await self._keeper.workers.run(self._ask_blocking, ask)
        except NcpsError:
            raise
        except self._keeper.engine.errors as error:
            raise self._failed(error) from error
        finally:
            self._asked.remove(sent)
            self._watch()
        self.confirmed = max(self.confirmed, sent)
        for channel, text in notes:
            self._keeper.told(channel, text)
        return result

    def _ask_blocking(self, ask: Callable[[Any], T]) -> tuple[T, list[tuple[str, str]]]:
        result = ask(self._connection)
        heard = [(note.channel, note.payload) for note in self._connection.notifies(timeout=0)]
        return result, heard

    def _failed(self, error: Exception) -> NcpsError:
        translated = self._keeper.engine.translated(error)
        if not self._connection.closed and not self._connection.broken:
            return translated
        self.die(translated)
        return Unavailable(
            str(translated), retry_after=LONGEST_PAUSE_S, timed_out=self.was_too_late
        )

    def _watch(self) -> None:
        """Listen while nothing is asked; end the session if an answer takes too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.is_dead:
            return
        if self._asked:
            late = self._asked[0] + self._keeper.deadline_s - self._keeper.now()
            self._timer = self._keeper.reactor.callLater(max(0.0, late), self._late)
        self._ear.listen(not self._asked)

    def _late(self) -> None:
        self._timer = None
        self.was_too_late = True
        self.die(
            Unavailable(
                f"{self._keeper.where} does not answer within {self._keeper.deadline_s:g}s",
                timed_out=True,
            )
        )

    def _heard(self) -> None:
        """Something came unasked: messages, or the end."""
        self._keeper.tasks.start("hear", self._hear())

    async def _hear(self) -> None:
        try:
            await self.run(lambda _connection: None)
        except NcpsError as error:
            self.die(error)

    def die(self, why: NcpsError) -> None:
        """End the session, and with it all that is locked in it; idempotent."""
        if self.is_dead:
            return
        self.is_dead = True
        self._ear.listen(False)
        self._ear.shut()
        self._watch()
        # Whoever asked and found it dead may be one that is cancelled at the end.
        self._keeper.reactor.callLater(0, self._end, why)

    def _end(self, why: NcpsError) -> None:
        if not self.ended.called:
            self.ended.callback(why)

    async def close(self) -> None:
        """Give the connection back to the system, once the thread is done with it."""
        self.die(Unavailable("disconnected"))
        with suppress(NcpsError, *self._keeper.engine.errors):
            await self._keeper.workers.run(self._connection.close)
        self._ear.close()


class PostgresSessions:
    """See the module; keeps one session.

    :param workers: one thread, started and stopped here.
    :param greet: done with each new connection, in the thread, before the session is up.
    :param told: called with what is heard on channels.
    :param began: called when a session is up; whether it is of the first attempt at all.
    :param deadline_s: an answer that takes longer costs the session.
    :param ping_s: an idle session is tried so often.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        *,
        greet: Callable[[Any], None],
        told: Listener,
        began: Callable[[bool], None],
        deadline_s: float,
        ping_s: float,
        subject: str,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.engine = engine
        self.told = told
        self.deadline_s = deadline_s
        self.now = now
        self.tasks = Tasks(reactor)
        self.workers = Workers(reactor, "leases", 1)
        self._greet = greet
        self._began = began
        self._ping_s = ping_s
        self._subject = subject
        self._fresh: Any = None
        self._session: Session | None = None
        self._error: NcpsError | None = None
        self._changes: list[Deferred[None]] = []
        self._is_known_away = False

    @property
    def where(self) -> str:
        """The database, for messages."""
        return self.engine.where

    @property
    def trouble(self) -> str:
        """Why nothing can be asked now; empty if it can, or may in a moment."""
        if self._error is not None:
            return str(self._error)
        since = self._session.waits_since if self._session is not None else None
        if since is not None and self.now() - since > SLOW_S:
            return f"{self.where} has not answered for {self.now() - since:.0f}s"
        return ""

    async def start(self) -> None:
        """Make the first attempt. Refused; whatever else fails is tried again in the background."""
        self.workers.start()
        self.tasks.start("postgresql session", self._keep())
        while self._session is None and self._error is None:
            await self._change()
        if isinstance(self._error, Refused):
            refusal = self._error
            await self.stop()
            raise refusal

    async def stop(self) -> None:
        """Disconnect."""
        self._is_known_away = True  # and known to be wanted: no line in the log
        session = self._session
        self._set(None, Unavailable("disconnected"))
        await self.tasks.stop(0.0)
        if session is not None:
            await session.close()
        await self.workers.stop(self.deadline_s)
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.close()

    async def current(self) -> Session:
        """Return the session, once it is up. Unavailable: it is away, or busy without an answer."""
        while self._error is None and (self._session is None or self._session.is_dead):
            await self._change()
        trouble = self.trouble
        if self._session is None or trouble:
            raise Unavailable(trouble, retry_after=LONGEST_PAUSE_S)
        return self._session

    async def _change(self) -> None:
        changed: Deferred[None] = Deferred()
        self._changes.append(changed)
        await changed

    def _set(self, session: Session | None, error: NcpsError | None) -> None:
        self._session, self._error = session, error
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.called:
                change.callback(None)
        if error is not None and not self._is_known_away:
            self._is_known_away = True
            self._log.warn("{subject}: {reason}", subject=self._subject, reason=str(error))
        elif session is not None and self._is_known_away:
            self._is_known_away = False
            self._log.info("leases can be had from {where} again", where=self.where)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        is_first = True
        while True:
            try:
                await self.workers.run(self._connect_blocking)
            except NcpsError as error:
                is_first = False
                self._set(None, error)
                await deferLater(self.reactor, pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            connection, self._fresh = self._fresh, None
            session = Session(self, connection)
            self._set(session, None)
            self._began(is_first)
            is_first = False
            pings = self.tasks.start("ping", self._ping(session))
            try:
                why = await session.ended
                self._log.warn(
                    "the session with the leases in {where} has ended, they are lost: {reason}",
                    where=self.where,
                    reason=str(why),
                )
            finally:
                pings.cancel()
                self.tasks.start("close", session.close())
            # Who asks now waits for the next session, unless that would be to wait for a server
            # that has just shown how long it takes.
            self._set(None, why if session.was_too_late else None)

    def _connect_blocking(self) -> None:
        """Leave the connection in `_fresh`, where `stop` finds it if nobody waits any more."""
        try:
            connection = self.engine.connect()
            try:
                self._greet(connection)
            except BaseException:
                connection.close()
                raise
        except self.engine.errors as error:
            raise self.engine.translated(error) from error
        self._fresh = connection

    async def _ping(self, session: Session) -> None:
        while True:
            await deferLater(self.reactor, self._ping_s)
            try:
                await session.run(lambda connection: connection.execute("SELECT 1"))
            except NcpsError as error:
                session.die(error)
                return
