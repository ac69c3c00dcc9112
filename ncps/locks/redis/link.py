"""RedisLink: one connection to Redis, kept up by one coroutine.

    joining ──► up ──► joining          joining: the first attempt after a loss; calls wait for it
       │                  │             up: calls are sent, pipelined
       └─────► away ◄─────┘             away: calls fail at once; the next attempt is due soon
                 └──► up

A server that accepts and does not answer is as far away as one that is not there: a command without
an answer within its deadline ends the connection. So is one that answers and does not do what is
needed of it. An idle connection is tried every few seconds (`check`), so that its loss is known
before somebody suffers it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.redis.protocol import TLS, Lost, Wire, dial, within

PING_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts to connect; each pause is twice the one before."""


class Away(Unavailable):
    """The server is known to be away: nothing was sent."""


@frozen(kw_only=True)
class Login:
    """Who we are; empty where Redis does not ask."""

    username: str = ""
    password: str = field(default="", repr=False)


@frozen(kw_only=True)
class RedisPlace:
    """Where Redis is.

    :param addresses: of the one server, or of the Sentinels that know it.
    :param master: name under which the Sentinels know it; empty without Sentinels.
    :param tls: None for no TLS, to the Sentinels neither.
    :param timeout_s: for everything that is asked of it.
    """

    addresses: tuple[tuple[str, int], ...]
    master: str = ""
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: TLS | None = None
    timeout_s: float = 2.0

    def __str__(self) -> str:
        where = ", ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"Redis {self.master} (Sentinel {where})" if self.master else f"Redis ({where})"


async def join(reactor: Any, place: RedisPlace, *, is_subscriber: bool) -> Wire:
    """Connect, log in, choose the database, get an answer. Refused, Unavailable."""
    if place.master:
        address = await _find_master(reactor, place)
    else:
        (address,) = place.addresses
    wire = await dial(
        reactor, address, tls=place.tls, timeout_s=place.timeout_s, is_subscriber=is_subscriber
    )
    try:
        await _log_in(wire, place.login)
        if place.master and (await wire.say("ROLE"))[0] != b"master":
            raise Unavailable(f"{wire.name} is not the master of {place.master} (any more)")
        if place.db:
            await wire.say("SELECT", place.db)
        await wire.say("PING")
    except BaseException:
        wire.close()
        raise
    return wire


async def _log_in(wire: Wire, login: Login) -> None:
    if login.username:
        await wire.say("AUTH", login.username, login.password)
    elif login.password:
        await wire.say("AUTH", login.password)


async def _find_master(reactor: Any, place: RedisPlace) -> tuple[str, int]:
    """Ask the Sentinels, one after the other. Refused, Unavailable: what the last one said."""
    failure: NcpsError | None = None
    for address in place.addresses:
        try:
            return await _ask_sentinel(reactor, place, address)
        except (Refused, Unavailable) as error:
            failure = error
    assert failure is not None, "there are addresses"
    raise failure


async def _ask_sentinel(
    reactor: Any, place: RedisPlace, address: tuple[str, int]
) -> tuple[str, int]:
    wire = await dial(reactor, address, tls=place.tls, timeout_s=place.timeout_s)
    try:
        await _log_in(wire, place.sentinel_login)
        found = await wire.say("SENTINEL", "get-master-addr-by-name", place.master)
    finally:
        wire.close()
    if not found:
        raise Unavailable(f"Sentinel {wire.name} knows no master {place.master}")
    host, port = found
    return host.decode(), int(port)


class RedisLink:
    """See the module.

    :param subject: what cannot be done while the link is away, for the log; empty: not logged.
    :param greet: done with each new connection before it counts as up. Refused, Unavailable.
    :param check: done every few seconds with a connection that is up, and ends it by an error; None
        to see that it answers.
    :param is_subscriber: whether the connection is for SUBSCRIBE.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        place: RedisPlace,
        *,
        subject: str,
        greet: Callable[[Wire], Awaitable[None]],
        check: Callable[[Wire], Awaitable[object]] | None = None,
        is_subscriber: bool = False,
    ) -> None:
        self.place = place
        self._reactor = reactor
        self._subject = subject
        self._greet = greet
        self._check = check if check is not None else _answers
        self._is_subscriber = is_subscriber
        self._tasks = Tasks(reactor)
        self._wire: Wire | None = None
        self._error: NcpsError | None = None
        self._changes: list[Deferred[None]] = []
        self._is_known_away = False

    @property
    def trouble(self) -> str:
        """Why the server is away; empty while it is there or is being joined."""
        return "" if self._error is None else str(self._error)

    async def start(self) -> None:
        """Make the first attempt. Refused; whatever else fails is tried again in the background."""
        self._tasks.start("redis", self._keep())
        while self._wire is None and self._error is None:
            await self._change()
        if isinstance(self._error, Refused):
            refusal = self._error
            await self.stop()
            raise refusal

    async def stop(self) -> None:
        """Disconnect."""
        wire = self._wire
        self._is_known_away = True  # and known to be wanted: no line in the log
        self._set(None, Unavailable("disconnected"))
        await self._tasks.stop(0.0)
        if wire is not None:
            await wire.end()

    async def up(self, seconds: float) -> None:
        """Wait until the link is up. Unavailable: it was not in time."""

        async def until_up() -> None:
            while self._wire is None:
                await self._change()

        await within(self._reactor, seconds, str(self.place), until_up())

    async def call(self, send: Callable[[Wire], Awaitable[Any]]) -> Any:
        """Have something asked that may be asked twice; return the answer.

        Away, Unavailable: nothing was asked, or it is unknown what came of it.
        """
        if self._error is not None:
            raise self._away()
        most = 2 * self.place.timeout_s  # once for a connection that is being made
        try:
            return await within(self._reactor, most, str(self.place), self._ask(send))
        except Refused as error:  # what was allowed at the start may be forbidden later
            raise Unavailable(str(error)) from error

    async def _ask(self, send: Callable[[Wire], Awaitable[Any]]) -> Any:
        """Ask, once more after a loss: a server that restarts breaks every connection once."""
        loss: Lost | None = None
        while True:
            while (wire := self._wire) is None:
                if self._error is not None:
                    raise loss or self._away()
                await self._change()
            try:
                return await send(wire)
            except Lost as error:
                self._drop(wire)
                if loss is not None:
                    raise
                loss = error

    def _away(self) -> Away:
        return Away(f"{self.place} is away: {self._error}", retry_after=LONGEST_PAUSE_S)

    async def _change(self) -> None:
        changed: Deferred[None] = Deferred()
        self._changes.append(changed)
        await changed

    def _drop(self, wire: Wire) -> None:
        """Give a connection up; another one is made at once."""
        wire.close()
        if self._wire is wire:
            self._wire = None

    def _set(self, wire: Wire | None, error: NcpsError | None) -> None:
        self._wire, self._error = wire, error
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.called:
                change.callback(None)
        if error is not None and not self._is_known_away:
            self._is_known_away = True
            if self._subject:
                self._log.warn(
                    "{place} is away, {subject}: {reason}",
                    place=str(self.place),
                    subject=self._subject,
                    reason=str(error),
                )
        elif wire is not None and self._is_known_away:
            self._is_known_away = False
            if self._subject:
                self._log.info("{place} is there again", place=str(self.place))

    async def _keep(self) -> None:
        """Connect, wait for the end, connect again; until cancelled."""
        pause = FIRST_PAUSE_S
        try:
            while True:
                try:
                    wire = await self._join()
                except NcpsError as error:
                    self._set(None, error)
                    await deferLater(self._reactor, pause * random.uniform(0.5, 1.0))  # noqa: S311
                    pause = min(pause * 2, LONGEST_PAUSE_S)
                    continue
                pause = FIRST_PAUSE_S
                ended = wire.end()
                self._set(wire, None)
                pings = self._tasks.start("redis ping", self._ping(wire))
                try:
                    await ended
                finally:
                    pings.cancel()
                    wire.close()
                self._set(None, None)
        finally:
            self._wire = None

    async def _join(self) -> Wire:
        wire = await join(self._reactor, self.place, is_subscriber=self._is_subscriber)
        try:
            await self._greet(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _ping(self, wire: Wire) -> None:
        while True:
            await deferLater(self._reactor, PING_S)
            try:
                await self._check(wire)
            except NcpsError:
                wire.close()
                return


async def _answers(wire: Wire) -> None:
    await wire.say("PING")
