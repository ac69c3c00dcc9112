"""Keeper: one coroutine that keeps one connection to a server of leases.

    Joining ──► Up ──► Joining      Joining: the first attempt, or the first after a loss; callers
       │         │                           wait for its outcome
       │         ▼                  Up:      callers use the connection
       └──────► Away ──► Up         Away:    callers fail immediately; the next attempt follows

A server that accepts connections and does not answer counts as away: `check` ends an idle
connection that does not answer. If the reason of the end is a time-out, the state is Away and not
Joining, because the next attempt would probably take as long. Sessions of PostgreSQL give such a
reason; connections to Redis give none, and their state is Joining.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ncps.aio.backoff import Backoff
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import sleep
from ncps.errors import NcpsError, Refused, Unavailable

ATTEMPTS = Backoff(first_s=0.1, longest_s=2.0)
"""Pauses between attempts to connect."""


class Connection(Protocol):
    """One connection, from its opening to its end."""

    @property
    def is_dead(self) -> bool:
        """Whether the connection takes no more questions."""

    @property
    def ended(self) -> Deferred[NcpsError]:
        """Fires with the reason when the connection has ended; for one caller."""

    def end(self, reason: NcpsError) -> None:
        """End the connection now; `ended` follows. Idempotent."""

    async def close(self) -> None:
        """End the connection and free its resources; idempotent."""


C = TypeVar("C", bound=Connection)


class Server(Protocol[C]):
    """A server of one kind: it connects, and learns the states of the connection."""

    @property
    def where(self) -> str:
        """The server's name for messages."""

    async def connect(self) -> C:
        """Connect, log in and prepare the connection.

        Raises Refused if the configuration cannot work, Unavailable if it may work later.
        """

    async def check(self, connection: C) -> None:
        """Test an idle connection. Raises NcpsError if the server does not answer."""

    def connected(self, is_first: bool) -> None:
        """React to the state Up.

        :param is_first: whether the first attempt succeeded, so that no message was missed.
        """

    def lost(self, reason: NcpsError) -> None:
        """React to the end of the connection."""

    def went_away(self, reason: NcpsError) -> None:
        """React to the state Away; called once until `came_back`."""

    def came_back(self) -> None:
        """React to the state Up after Away."""


@frozen
class Joining:
    """The state of an attempt to connect; callers wait for its outcome."""


@frozen
class Up(Generic[C]):
    """The state of a connection that works."""

    connection: C


@frozen
class Away:
    """The state after a failed attempt, and after the stop of the keeper."""

    reason: NcpsError


class Keeper(Generic[C]):
    """The keeper of one connection to a server.

    :param check_s: seconds between two checks of a connection that is up.
    """

    def __init__(self, clock: IReactorTime, server: Server[C], *, check_s: float) -> None:
        self._clock = clock
        self._server = server
        self._check_s = check_s
        self._tasks = Tasks(clock)
        self._state: Joining | Up[C] | Away = Joining()
        self._changes: list[Deferred[None]] = []
        self._is_reported_away = False

    @property
    def trouble(self) -> str:
        """The reason why the server is away; empty while the state is Up or Joining."""
        return str(self._state.reason) if isinstance(self._state, Away) else ""

    @property
    def connection(self) -> C | None:
        """The connection; None if there is none, or it is dead."""
        if isinstance(self._state, Up) and not self._state.connection.is_dead:
            return self._state.connection
        return None

    async def start(self) -> None:
        """Make the first attempt; later ones follow in the background.

        Raises Refused if the first attempt did.
        """
        self._tasks.start(f"connection to {self._server.where}", self._keep())
        while isinstance(self._state, Joining):
            await self._changed()
        if isinstance(self._state, Away) and isinstance(self._state.reason, Refused):
            refusal = self._state.reason
            await self.stop()
            raise refusal

    async def stop(self) -> None:
        """Disconnect; takes at most `ncps.aio.tasks.UNWIND_S` seconds."""
        self._is_reported_away = True  # an intended end is not reported
        self._become(Away(Unavailable("disconnected")))
        await self._tasks.stop(0.0)

    async def current(self) -> C:
        """Return the connection; wait while the state is Joining.

        Raises Unavailable if the state is Away.
        """
        while (connection := self.connection) is None:
            if isinstance(self._state, Away):
                raise Unavailable(self.trouble, retry_after=ATTEMPTS.longest_s)
            await self._changed()
        return connection

    async def up(self) -> C:
        """Return the connection; wait until there is one. The caller sets the deadline."""
        while (connection := self.connection) is None:
            await self._changed()
        return connection

    async def _changed(self) -> None:
        """Wait for the next change of the state."""
        change: Deferred[None] = Deferred()
        self._changes.append(change)
        try:
            await change
        finally:
            if change in self._changes:
                self._changes.remove(change)

    def _become(self, state: Joining | Up[C] | Away) -> None:
        self._state = state
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.called:
                change.callback(None)
        if isinstance(state, Away) and not self._is_reported_away:
            self._is_reported_away = True
            self._server.went_away(state.reason)
        elif isinstance(state, Up) and self._is_reported_away:
            self._is_reported_away = False
            self._server.came_back()

    async def _keep(self) -> None:
        """Connect, wait for the end, and repeat, until cancelled."""
        pauses = ATTEMPTS.pauses()
        is_first = True
        while True:
            try:
                connection = await self._server.connect()
            except NcpsError as error:
                self._become(Away(error))
                await sleep(self._clock, next(pauses))
            else:
                await self._live(connection, is_first=is_first)
                pauses = ATTEMPTS.pauses()
            is_first = False

    async def _live(self, connection: C, *, is_first: bool) -> None:
        """Offer the connection to callers until it ends."""
        checks = None
        try:
            self._become(Up(connection))
            self._server.connected(is_first)
            checks = self._tasks.start("check", self._check(connection))
            reason = await connection.ended
        finally:
            if checks is not None:
                checks.cancel()
            self._tasks.start("close", connection.close())
        self._server.lost(reason)
        is_slow = isinstance(reason, Unavailable) and reason.timed_out
        self._become(Away(reason) if is_slow else Joining())

    async def _check(self, connection: C) -> None:
        """End the connection when a check fails."""
        while True:
            await sleep(self._clock, self._check_s)
            try:
                await self._server.check(connection)
            except NcpsError as error:
                connection.end(error)
                return
