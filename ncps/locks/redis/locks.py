"""Leases in Redis: a key with a token and a time to live for each, changed by scripts only.

    <prefix><name>    "<token> <fence> <address>", expires after the TTL unless renewed
    <prefix>#fence    number of the last grant of any name; never expires
    <prefix>#write    written and removed again, to check that the server takes writes

Names of leases do not begin with "#". Keys and channels (see `ncps.locks.redis.channels`) begin
with the prefix, so that an ACL can be written for them.

Redis runs a script as one step, so no other command comes between its reads and writes. Each
attempt has a token of its own, so that an attempt may be repeated after its answer was lost, and
only the holder renews and releases. The fence of a grant is the time of Redis in microseconds, or
one more than the last fence if that is larger: so fences grow even if Redis loses its memory.

A lease is held for certain until its TTL has passed since the last renewal was *sent*. From then
on it counts as lost, whatever Redis says later.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.aio.keyed import KeyedEvent
from ncps.aio.tasks import Tasks
from ncps.errors import Refused, Unavailable
from ncps.locks.redis.channels import RedisChannels
from ncps.locks.redis.checks import examine
from ncps.locks.redis.client import NotSent, RedisClient, RedisServer
from ncps.locks.redis.connection import RedisConnection
from ncps.locks.shared import LeaseBackend, since_boot

TAKE = """
local held = redis.call('GET', KEYS[1])
if held then
    if string.sub(held, 1, 32) == ARGV[1] then
        return string.match(held, '^%x+ (%d+)')
    end
    return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
local fence = string.format('%.0f', math.max(last + 1, now))
redis.call('SET', KEYS[2], fence)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. fence .. ' ' .. ARGV[3], 'PX', ARGV[2])
return fence
"""

RENEW = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 32) == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""

RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 32) == ARGV[1] then
    redis.call('DEL', KEYS[1])
    redis.pcall('PUBLISH', ARGV[2], ARGV[3])
    return 1
end
return 0
"""

WRITE = """
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return redis.call('DEL', KEYS[1])
"""

DRIFT = 0.01
"""Part of a TTL by which two clocks may disagree over its length."""


class RedisGrant:
    """A lease in Redis; its backend renews it until it is given back or lost."""

    def __init__(self, backend: RedisBackend, name: str, token: str, fence: int) -> None:
        self.name = name
        self.token = token
        self._backend = backend
        self._fence = fence
        self._is_lost = False
        self.until = 0.0
        self.renewals: Deferred[None] | None = None

    @property
    def fence(self) -> int:
        return self._fence

    @property
    def is_lost(self) -> bool:
        if not self._is_lost and self._backend.now() >= self.until:
            self._is_lost = True  # for good: another process may have held it meanwhile
        return self._is_lost

    def lose(self) -> None:
        """Note that another process has the lease, or may have had it."""
        self._is_lost = True

    async def give_back(self) -> None:
        """See `ncps.locks.shared.Grant`."""
        if self.renewals is not None:
            self.renewals.cancel()
        await self._backend.give_back(self)


class RedisBackend(LeaseBackend):
    """Leases of one process in Redis.

    :param ttl_of: returns, for the name of a lease, the seconds after which it is free unless
        renewed.
    :param now: seconds of a clock that is never set.
    :param subject: what cannot be done while Redis is away, for the log.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        channels: RedisChannels,
        *,
        ttl_of: Callable[[str], float],
        address: str = "",
        now: Callable[[], float] = since_boot,
        subject: str = "what must be fetched cannot be",
    ) -> None:
        self.freed = KeyedEvent()
        self.now = now
        self._reactor = reactor
        self._prefix = channels.prefix
        self._ttl_of = ttl_of
        self._address = address
        server = RedisServer(
            reactor, channels.address, subject=subject, greet=self._greet, check=self._write
        )
        self._client = RedisClient(reactor, server)
        self._channels = channels
        self._tasks = Tasks(reactor)
        self._is_examined = False
        self._complaint = ""
        channels.on_release(self.freed.set, self.freed.set_all)

    @property
    def client(self) -> RedisClient:
        """The connection, for other messages."""
        return self._client

    @property
    def trouble(self) -> str:
        return self._client.trouble

    async def start(self) -> None:
        await self._client.start()
        await self._channels.start()

    async def stop(self) -> None:
        await self._tasks.stop(0.0)
        await self._channels.stop()
        await self._client.stop()

    async def take(self, name: str) -> RedisGrant | None:
        token = secrets.token_hex(16)
        ttl = self._ttl_of(name)
        sent = self.now()
        keys: list[bytes | str] = [self._prefix + name, f"{self._prefix}#fence"]
        words: list[bytes | str | int] = [token, int(ttl * 1000), self._address]
        try:
            fence = await self._client.call(lambda redis: redis.script(TAKE, keys, words))
        except NotSent:
            raise
        except Unavailable:
            self._tasks.start("take back", self._take_back(name, token, ttl))
            raise
        if not fence:
            return None
        grant = RedisGrant(self, name, token, int(fence))
        grant.until = _until(sent, ttl)
        grant.renewals = self._tasks.start("renew", self._renew(grant, ttl))
        return grant

    async def holder(self, name: str) -> str:
        held = await self._client.call(lambda redis: redis.command("GET", self._prefix + name))
        parts = (held or b"").decode("utf-8", "replace").split(" ", 2)
        return parts[2] if len(parts) == 3 else ""

    async def give_back(self, grant: RedisGrant) -> None:
        """Release; if Redis does not answer, the lease expires."""
        try:
            await self._release(grant.name, grant.token)
        except Unavailable as error:
            self._log.debug(
                "lease {name} was not released: {reason}", name=grant.name, reason=str(error)
            )

    async def _release(self, name: str, token: str) -> None:
        await self._client.call(
            lambda redis: redis.script(
                RELEASE, [self._prefix + name], [token, self._channels.released, name]
            )
        )

    async def _take_back(self, name: str, token: str, ttl: float) -> None:
        """Release the lease that an attempt without an answer may have got."""
        try:
            await self._client.up(ttl)
            await self._release(name, token)
        except Unavailable:
            pass  # by now it has expired

    async def _renew(self, grant: RedisGrant, ttl: float) -> None:
        keys: list[bytes | str] = [self._prefix + grant.name]
        words: list[bytes | str | int] = [grant.token, int(ttl * 1000)]
        pause = ttl / 3
        while True:
            await deferLater(self._reactor, pause)
            if grant.is_lost:
                break
            sent = self.now()
            try:
                is_ours = await self._client.call(lambda redis: redis.script(RENEW, keys, words))
            except Unavailable:
                pause = ttl / 12
                continue
            if not is_ours:
                grant.lose()
                break
            if not grant.is_lost:
                grant.until = _until(sent, ttl)
            pause = ttl / 3
        self._log.warn("lease {name} was lost", name=grant.name)

    async def _greet(self, redis: RedisConnection) -> None:
        """Check the server. Raises Refused until one was accepted; later a problem is logged."""
        try:
            await examine(redis)
        except Refused as error:
            if not self._is_examined:
                raise
            if str(error) != self._complaint:
                self._log.error("{reason}", reason=str(error))
            self._complaint = str(error)
        else:
            self._complaint = ""
        self._is_examined = True
        await self._write(redis)

    async def _write(self, redis: RedisConnection) -> None:
        """Check that the server takes writes. Raises Unavailable if it does not."""
        await redis.script(WRITE, [f"{self._prefix}#write"], [])


def _until(sent: float, ttl: float) -> float:
    return sent + ttl * (1 - DRIFT)
