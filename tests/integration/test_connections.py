"""Connections to a server, with a fake driver, in real threads."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.database.connections import Connections
from ncps.database.dialects.base import Trouble

reactor = cast("Any", _reactor)


class DriverError(Exception):
    """The one error of the driver."""


class Raw:
    """A connection that records its calls; it is its own cursor.

    :ivar failure: raised by `rollback`.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failure: Exception | None = None
        self.ours, self.theirs = socket.socketpair()

    def cursor(self) -> Raw:
        return self

    def execute(self, statement: str, _parameters: object) -> None:
        self.done.append(statement)

    def commit(self) -> None:
        self.done.append("commit")

    def rollback(self) -> None:
        self.done.append("rollback")
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.done.append("close")
        self.ours.close()
        self.theirs.close()


class MadeUp:
    """The part of a dialect that connections need."""

    errors = (DriverError,)

    def __init__(self) -> None:
        self.made: list[Raw] = []

    def connect(self) -> Raw:
        self.made.append(Raw())
        return self.made[-1]

    def file_number(self, raw: Raw) -> int:
        return raw.ours.fileno()

    def translate(self, statement: str) -> str:
        return statement

    def trouble(self, _error: Exception) -> Trouble:
        return Trouble.FINAL


class ConnectionsTests(TestCase):
    def setUp(self) -> None:
        self.dialect = MadeUp()
        dialect = cast("Any", self.dialect)
        self.connections = Connections(reactor, dialect, size=1, idle=1)
        self.connections.start()
        self.addCleanup(self.connections.close)

    async def ask(self, statement: str = "ask", begin: tuple[str, ...] = ("begin",)) -> None:
        await self.connections.call(begin, lambda txn: txn.execute(statement), lambda _thread: None)

    async def fail_inside(self) -> None:
        """Raise an error in a transaction that is not one of the driver."""

        def failing(_txn: Any) -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await self.connections.call(("begin",), failing, lambda _thread: None)

    async def test_a_transaction_is_committed_on_the_connection_of_its_thread(self) -> None:
        """The next one has the same connection."""
        await self.ask("one")
        await self.ask("two")
        (raw,) = self.dialect.made
        self.assertEqual(["begin", "one", "commit", "begin", "two", "commit"], raw.done)
        self.connections.close()
        self.assertEqual("close", raw.done[-1])

    async def test_without_a_begin_nothing_is_committed(self) -> None:
        """Each statement is a transaction of its own."""
        await self.ask(begin=())
        self.assertEqual(["ask"], self.dialect.made[0].done)

    async def test_a_failure_is_rolled_back(self) -> None:
        """The connection goes on."""
        await self.fail_inside()
        await self.ask()
        (raw,) = self.dialect.made
        self.assertEqual(["begin", "rollback", "begin", "ask", "commit"], raw.done)

    async def test_a_connection_that_cannot_roll_back_is_replaced(self) -> None:
        """The caller gets the first error; other errors than the driver's are logged, too."""
        for failure, logged in ((DriverError(), 0), (ValueError(), 1)):
            await self.ask()
            self.dialect.made[-1].failure = failure
            await self.fail_inside()
            self.assertEqual("close", self.dialect.made[-1].done[-1])
            self.assertEqual(logged, len(self.flushLoggedErrors(ValueError)))
        await self.ask()
        self.assertEqual(3, len(self.dialect.made))
