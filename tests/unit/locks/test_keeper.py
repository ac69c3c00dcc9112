"""Tests of the keeper of a connection, with a scripted server."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.keeper import ATTEMPTS, Keeper, Server
from tests.contract.running import start

CHECK_S = 5.0


class FakeConnection:
    """A connection that the test ends."""

    def __init__(self) -> None:
        self.ended: Deferred[NcpsError] = Deferred()
        self.is_dead = False
        self.is_closed = False

    def end(self, reason: NcpsError) -> None:
        self.is_dead = True
        if not self.ended.called:
            self.ended.callback(reason)

    async def close(self) -> None:
        self.end(Unavailable("closed"))
        self.is_closed = True


class FakeServer(Server[FakeConnection]):
    """The fake of a server.

    :ivar failing: the error of every attempt while it is set.
    :ivar gate: attempts wait for it while it is set.
    :ivar check_fails: the error of every check while it is set.
    :ivar heard: the calls of the keeper.
    """

    where = "the server"

    def __init__(self) -> None:
        self.failing: NcpsError | None = None
        self.gate: Deferred[None] | None = None
        self.check_fails: NcpsError | None = None
        self.checks = 0
        self.connections: list[FakeConnection] = []
        self.attempts = 0
        self.heard: list[str] = []

    async def connect(self) -> FakeConnection:
        self.attempts += 1
        if self.gate is not None:
            await self.gate
        if self.failing is not None:
            raise self.failing.with_traceback(None)
        self.connections.append(FakeConnection())
        return self.connections[-1]

    async def check(self, _connection: FakeConnection) -> None:
        self.checks += 1
        if self.check_fails is not None:
            raise self.check_fails

    def connected(self, is_first: bool) -> None:
        self.heard.append("first" if is_first else "connected")

    def lost(self, reason: NcpsError) -> None:
        self.heard.append(f"lost: {reason}")

    def went_away(self, reason: NcpsError) -> None:
        self.heard.append(f"away: {reason}")

    def came_back(self) -> None:
        self.heard.append("back")


class KeeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer()
        self.keeper = Keeper(self.clock, self.server, check_s=CHECK_S)

    def start(self) -> None:
        self.successResultOf(start(self.keeper.start()))

    def stop(self) -> None:
        stopping = start(self.keeper.stop())
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.assertTrue(all(connection.is_closed for connection in self.server.connections))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_connection_is_offered_until_the_end(self) -> None:
        """Callers get the connection; a stop closes it, without a report."""
        self.start()
        (connection,) = self.server.connections
        self.assertIs(connection, self.successResultOf(start(self.keeper.current())))
        self.assertIs(connection, self.successResultOf(start(self.keeper.up())))
        self.assertEqual("", self.keeper.trouble)
        self.stop()
        self.assertEqual(["first"], self.server.heard)
        self.assertEqual("disconnected", self.keeper.trouble)
        self.failureResultOf(start(self.keeper.current()), Unavailable)

    def test_a_refusal_at_the_start(self) -> None:
        """The error reaches the caller, and no further attempt follows."""
        self.server.failing = Refused("wrong password")
        starting = start(self.keeper.start())
        self.clock.advance(0)
        self.failureResultOf(starting, Refused)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_server_that_is_away_at_the_start(self) -> None:
        """Callers fail immediately; attempts continue; there is one report for each change."""
        self.server.failing = Unavailable("no route")
        self.start()
        error = self.failureResultOf(start(self.keeper.current()), Unavailable).value
        self.assertEqual(("no route", ATTEMPTS.longest_s), (str(error), error.retry_after))
        waiting = start(self.keeper.up())
        for _ in range(10):
            self.clock.advance(ATTEMPTS.longest_s)
        self.assertEqual(11, self.server.attempts)
        self.assertNoResult(waiting)
        self.server.failing = None
        self.clock.advance(ATTEMPTS.longest_s)
        self.assertIs(self.server.connections[0], self.successResultOf(waiting))
        self.assertEqual(["away: no route", "back", "connected"], self.server.heard)
        self.stop()

    def test_a_refusal_later_is_tried_again(self) -> None:
        """After a later refusal attempts continue."""
        self.start()
        self.server.failing = Refused("wrong password")
        self.server.connections[0].end(Unavailable("reset"))
        self.assertEqual("wrong password", self.keeper.trouble)
        self.server.failing = None
        self.clock.advance(ATTEMPTS.first_s)
        self.assertEqual("", self.keeper.trouble)
        self.stop()

    def test_callers_wait_for_the_first_attempt_after_a_loss(self) -> None:
        """Callers get the next connection, or the error of the attempt."""
        self.start()
        for failing in (None, Unavailable("no route")):
            gate: Deferred[None] = Deferred()
            self.server.gate, self.server.failing = gate, failing
            self.server.connections[-1].end(Unavailable("reset"))
            self.assertIsNone(self.keeper.connection)
            self.assertEqual("", self.keeper.trouble)
            waiting = [start(self.keeper.current()) for _ in range(3)]
            waiting[1].cancel()
            self.failureResultOf(waiting[1], CancelledError)
            self.assertNoResult(waiting[0])
            self.server.gate = None
            gate.callback(None)
            for caller in (waiting[0], waiting[2]):
                if failing is None:
                    connection = self.successResultOf(caller)
                    self.assertIs(self.server.connections[-1], connection)
                else:
                    self.failureResultOf(caller, Unavailable)
        self.assertTrue(self.server.connections[0].is_closed)
        self.assertEqual(
            ["first", "lost: reset", "connected", "lost: reset", "away: no route"],
            self.server.heard,
        )
        self.stop()

    def test_a_connection_that_is_about_to_end(self) -> None:
        """A dead connection is given to no caller, even before its end is reported."""
        self.start()
        self.server.connections[0].is_dead = True
        waiting = start(self.keeper.current())
        self.assertNoResult(waiting)
        self.server.connections[0].end(Unavailable("reset"))
        self.assertIs(self.server.connections[1], self.successResultOf(waiting))
        self.stop()

    def test_an_answer_that_took_too_long(self) -> None:
        """After a time-out callers fail immediately until the next attempt has ended."""
        self.start()
        gate: Deferred[None] = Deferred()
        self.server.gate = gate
        self.server.connections[0].end(Unavailable("no answer", timed_out=True))
        self.failureResultOf(start(self.keeper.current()), Unavailable)
        gate.callback(None)
        self.successResultOf(start(self.keeper.current()))
        self.stop()

    def test_idle_connections_are_checked(self) -> None:
        """A failed check ends the connection, and another one replaces it."""
        self.start()
        self.clock.advance(CHECK_S)
        self.clock.advance(CHECK_S)
        self.assertEqual((2, 1), (self.server.checks, len(self.server.connections)))
        self.server.check_fails = Unavailable("silence")
        self.clock.advance(CHECK_S)
        self.assertEqual(2, len(self.server.connections))
        self.assertEqual(["first", "lost: silence", "connected"], self.server.heard)
        self.stop()

    def test_pauses_grow_and_begin_again_after_a_success(self) -> None:
        """After a success the pauses begin again with the first one."""
        self.start()
        for _ in range(2):
            self.server.failing = Unavailable("no route")
            before = self.server.attempts
            self.server.connections[-1].end(Unavailable("reset"))
            self.clock.advance(ATTEMPTS.first_s)
            self.assertEqual(before + 2, self.server.attempts)
            self.clock.advance(ATTEMPTS.first_s * 0.99)
            self.assertEqual(before + 2, self.server.attempts)
            self.server.failing = None
            self.clock.advance(ATTEMPTS.longest_s)
        self.stop()

    def test_stopped_while_it_connects(self) -> None:
        """The attempt is cancelled, and callers that wait for it get an error."""
        self.server.gate = Deferred()
        starting = start(self.keeper.start())
        waiting = start(self.keeper.current())
        self.stop()
        self.failureResultOf(waiting, Unavailable)
        self.successResultOf(starting)
        self.assertEqual([], self.server.heard)
