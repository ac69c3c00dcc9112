"""RedisClient: calls to Redis over one connection of a `Keeper`.

A connection ends if a command gets no answer within its deadline, or if the server refuses writes.
`Keeper` checks an idle connection every few seconds, so that its loss is known before a caller
needs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from ncps.aio.waiting import within
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.keeper import ATTEMPTS, Keeper, Server
from ncps.locks.redis.address import RedisAddress, join
from ncps.locks.redis.connection import Lost, RedisConnection, silence

CHECK_S = 5.0
MOST_CALLS = 10_000
"""Calls that may wait for the answers of a server; further calls raise NotSent."""
Step = Callable[[RedisConnection], Awaitable[object]]
"""A function of a connection.

Raises Refused if the configuration cannot work, Unavailable if it fails now.
"""


class NotSent(Unavailable):
    """The server is away or too slow: nothing was sent."""


async def ping(connection: RedisConnection) -> None:
    """Check that the server answers. Raises Unavailable if it does not."""
    await connection.command("PING")


class RedisServer(Server[RedisConnection]):
    """A Redis server for a keeper, with its messages in the log.

    :param subject: the consequence for users while Redis is away, for the log; empty: not logged.
    :param greet: called with each new connection before it counts as up.
    :param check: called with an idle connection; an error ends it.
    :param is_subscriber: whether the connection is for SUBSCRIBE.
    :ivar away: the last logged reason why the server is away; empty while it is not.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        *,
        subject: str = "",
        greet: Step,
        check: Step = ping,
        is_subscriber: bool = False,
    ) -> None:
        self.address = address
        self.away = ""
        self._reactor = reactor
        self._subject = subject
        self._greet = greet
        self._check = check
        self._is_subscriber = is_subscriber

    @property
    def where(self) -> str:
        return str(self.address)

    async def connect(self) -> RedisConnection:
        connection = await join(self._reactor, self.address, is_subscriber=self._is_subscriber)
        try:
            await self._greet(connection)
        except BaseException:
            connection.end()
            raise
        return connection

    async def check(self, connection: RedisConnection) -> None:
        await self._check(connection)

    def connected(self, is_first: bool) -> None:
        """See `Server`: calls wait for the state themselves."""

    def lost(self, reason: NcpsError) -> None:
        """See `Server`: calls under way raise `Lost` themselves."""

    def went_away(self, reason: NcpsError) -> None:
        self.away = str(reason)
        if self._subject:
            self._log.warn(
                "{place} is away, {subject}: {reason}",
                place=self.where,
                subject=self._subject,
                reason=str(reason),
            )

    def came_back(self) -> None:
        self.away = ""
        if self._subject:
            self._log.info("{place} answers again", place=self.where)


class RedisClient:
    """A client of Redis with one connection; it repeats a call once if the connection breaks."""

    def __init__(self, reactor: Any, server: RedisServer) -> None:
        self._reactor = reactor
        self._where = server.where
        self._timeout_s = server.address.timeout_s
        self._calls = 0
        self._keeper = Keeper(reactor, server, check_s=CHECK_S)

    @property
    def trouble(self) -> str:
        """The reason why the server is away; empty while it answers, or is being joined."""
        return self._keeper.trouble

    async def start(self) -> None:
        """Connect, now or as soon as Redis answers.

        Raises Refused if the configuration cannot work.
        """
        await self._keeper.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._keeper.stop()

    async def up(self, seconds: float) -> None:
        """Wait until there is a connection. Raises Unavailable after `seconds`."""
        await within(self._reactor, seconds, self._keeper.up(), silence(self._where, seconds))

    async def call(self, send: Callable[[RedisConnection], Awaitable[Any]]) -> Any:
        """Make a call that may be repeated; return the answer.

        Raises NotSent if nothing was sent, Unavailable if the outcome is unknown.
        """
        if self._keeper.trouble:
            raise self._not_sent()
        if self._calls >= MOST_CALLS:
            raise NotSent(f"{self._where} is too slow: {MOST_CALLS} calls wait for its answers")
        self._calls += 1
        most = 2 * self._timeout_s  # the first half for a connection that is being made
        try:
            late = silence(self._where, most)
            return await within(self._reactor, most, self._ask(send), late)
        except Refused as error:  # a command that was allowed at the start may be forbidden later
            raise Unavailable(str(error)) from error
        finally:
            self._calls -= 1

    async def _ask(self, send: Callable[[RedisConnection], Awaitable[Any]]) -> Any:
        """Ask; repeat once after a loss, because a restart of the server breaks the connection."""
        loss: Lost | None = None
        while True:
            try:
                connection = await self._keeper.current()
            except Unavailable as error:
                raise loss or self._not_sent() from error
            try:
                return await send(connection)
            except Lost as error:
                connection.end()
                if loss is not None:
                    raise
                loss = error

    def _not_sent(self) -> NotSent:
        reason = f"{self._where} is away: {self._keeper.trouble}"
        return NotSent(reason, retry_after=ATTEMPTS.longest_s)
