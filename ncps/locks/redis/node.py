"""RedisNode: the leases and messages at one Redis server; leases may need several servers.

    <prefix><name>    "<token> <fence> <address>", expires after the TTL unless renewed
    <prefix>#fence    number of the last grant of any name; never expires
    <prefix>#write    written and removed again, to check that the server accepts writes

Names of leases do not begin with "#". Keys and channels (see `ncps.locks.redis.channels`) begin
with the prefix, so that an ACL can name them.

Redis runs a script as one step, so no other command comes between its reads and writes. The number
of a grant, its fence, is the largest of three numbers: the time of the server in microseconds, the
last fence plus one, and the number in the request. So fences grow even if the server loses its
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.errors import NcpsError, Refused
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.ballot import majority
from ncps.locks.redis.channels import RedisChannels
from ncps.locks.redis.checks import Evicts, Identities, examine
from ncps.locks.redis.client import RedisClient, RedisServer
from ncps.locks.redis.connection import RedisConnection
from ncps.locks.shared import since_boot

TAKE = """
local held = redis.call('GET', KEYS[1])
if held then
    local token = string.sub(held, 1, 32)
    if token == ARGV[1] then
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return {string.match(held, '^%x+ (%d+)'), token}
    end
    return {'0', token}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
local fence = string.format('%.0f', math.max(last + 1, now, tonumber(ARGV[3])))
redis.call('SET', KEYS[2], fence)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. fence .. ' ' .. ARGV[4], 'PX', ARGV[2])
return {fence, ARGV[1]}
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
    if ARGV[2] ~= '' then
        redis.pcall('PUBLISH', ARGV[2], ARGV[3])
    end
    return 1
end
return 0
"""

RAISE = """
local last = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if last < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
end
return 1
"""

WRITE = """
redis.call('SET', KEYS[1], '1', 'PX', 1000)
redis.call('DEL', KEYS[1])
local time = redis.call('TIME')
return string.format('%.0f', time[1] * 1000000 + time[2])
"""

T = TypeVar("T")

GRACE_S = 0.5
"""Seconds that running releases have at the end of the process."""


class RedisNode(RedisServer):
    """One server, with a connection for questions and one for messages.

    :param subject: the consequence for users while this server is away, for the log.
    :param identities: the server behind each address.
    :param now: returns seconds of a monotonic clock.
    :ivar errands: questions to the server that continue without their callers; each has a deadline.
    :ivar ahead_s: the server's seconds since 1970 minus those of `now`; None if not known yet.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        *,
        prefix: str,
        subject: str,
        identities: Identities,
        now: Callable[[], float] = since_boot,
    ) -> None:
        super().__init__(reactor, address, subject=subject, greet=self._greet, check=self._write)
        self.client = RedisClient(reactor, self)
        self.channels = RedisChannels(reactor, address, prefix=prefix)
        self.errands = Tasks(reactor)
        self.ahead_s: float | None = None
        self._prefix = prefix
        self._identities = identities
        self._now = now
        self._turned: Callable[[], None] = lambda: None
        self._is_examined = False
        self._complaint = ""

    @property
    def trouble(self) -> str:
        """The reason why the server is away; empty while it answers, or is being joined."""
        return self.client.trouble

    def on_turn(self, turned: Callable[[], None]) -> None:
        """Call `turned` when the server has gone away or has come back."""
        self._turned = turned

    async def stop(self) -> None:
        """Wait at most `GRACE_S` for errands, then disconnect."""
        await self.errands.stop(GRACE_S)
        await self.channels.stop()
        await self.client.stop()

    # Leases. Each method raises NotSent if nothing was sent, Unavailable if the outcome is unknown.

    async def take(
        self, name: str, token: str, ttl: float, *, at_least: int, address: str
    ) -> tuple[int, str]:
        """Make one attempt; return the fence, or 0 if the name is taken, and the holder's token.

        If that is this token, the TTL of the lease begins now.

        :param at_least: the smallest allowed fence.
        """
        keys: list[bytes | str] = [self._prefix + name, f"{self._prefix}#fence"]
        words: list[bytes | str | int] = [token, int(ttl * 1000), at_least, address]
        fence, holder = await self.client.call(lambda redis: redis.script(TAKE, keys, words))
        return int(fence), holder.decode("utf-8", "replace")

    async def renew(self, name: str, token: str, ttl: float) -> bool:
        """Restart the TTL of a lease; False if another token has the name."""
        keys: list[bytes | str] = [self._prefix + name]
        words: list[bytes | str | int] = [token, int(ttl * 1000)]
        return bool(await self.client.call(lambda redis: redis.script(RENEW, keys, words)))

    async def release(self, name: str, token: str, *, is_announced: bool) -> None:
        """Free the name, unless another token has it."""
        keys: list[bytes | str] = [self._prefix + name]
        channel = self.channels.released if is_announced else ""
        words: list[bytes | str | int] = [token, channel, name]
        await self.client.call(lambda redis: redis.script(RELEASE, keys, words))

    async def raise_fence(self, fence: int) -> None:
        """Make each later fence of this server larger than this one."""
        keys: list[bytes | str] = [f"{self._prefix}#fence"]
        await self.client.call(lambda redis: redis.script(RAISE, keys, [str(fence)]))

    async def holder(self, name: str) -> str:
        """Return the address of the holder; empty if there is none."""
        held = await self.client.call(lambda redis: redis.command("GET", self._prefix + name))
        parts = (held or b"").decode("utf-8", "replace").split(" ", 2)
        return parts[2] if len(parts) == 3 else ""

    async def publish(self, line: str) -> None:
        """Send a line to all processes that receive notices from this server."""
        await self.client.call(lambda redis: redis.command("PUBLISH", self.channels.notices, line))

    # The methods for a keeper

    async def connect(self) -> RedisConnection:
        """See `Server`; log a refusal if the last logged reason was another one."""
        try:
            return await super().connect()
        except Refused as error:
            self._identities.leave(self.where)
            if self.away and str(error) != self.away:
                self.away = str(error)
                self._log.error("{reason}", reason=str(error))
            raise

    def lost(self, reason: NcpsError) -> None:
        """See `Server`."""
        self._identities.leave(self.where)

    def went_away(self, reason: NcpsError) -> None:
        """See `Server`."""
        super().went_away(reason)
        self._turned()

    def came_back(self) -> None:
        """See `Server`."""
        super().came_back()
        self._turned()

    async def _greet(self, redis: RedisConnection) -> None:
        """Check the server.

        Raises Refused if it is unsuitable for leases, or if another address in use leads to it. If
        it was suitable before, and may drop leases now, this is only logged.
        """
        identity = await self._examine(redis)
        await self._write(redis)
        self._identities.enter(self.where, redis.name, identity)

    async def _examine(self, redis: RedisConnection) -> str:
        """Return the identity of the server's process; empty if it is unknown."""
        try:
            identity = await examine(redis)
        except Evicts as error:
            if not self._is_examined:
                raise
            if str(error) != self._complaint:
                self._log.error("{reason}", reason=str(error))
            self._complaint = str(error)
            return error.identity
        self._complaint = ""
        self._is_examined = True
        return identity

    async def _write(self, redis: RedisConnection) -> None:
        """Check that the server accepts writes. Raises Unavailable if it does not."""
        sent = self._now()
        time = await redis.script(WRITE, [f"{self._prefix}#write"], [])
        self.ahead_s = int(time) / 1e6 - sent


def redis_nodes(
    reactor: Any,
    addresses: Iterable[RedisAddress],
    *,
    prefix: str,
    subject: str,
    now: Callable[[], float] = since_boot,
) -> list[RedisNode]:
    """Make the nodes that keep leases together, without connecting.

    :param subject: the consequence for users without leases, for the log.
    """
    places = list(addresses)
    identities = Identities()
    if len(places) > 1:
        subject = f"one of {len(places)} servers of which leases need {majority(len(places))}"
    return [
        RedisNode(reactor, place, prefix=prefix, subject=subject, identities=identities, now=now)
        for place in places
    ]


async def start_all(nodes: Iterable[RedisNode]) -> None:
    """Connect to all servers at the same time; to those that are away as soon as they answer.

    Raises Refused, with each reason, if the configuration cannot work.
    """
    parts = [part for node in nodes for part in (node.client, node.channels)]
    refusals = await at_once(_refusal(part.start()) for part in parts)
    if any(refusals):
        raise Refused("; ".join(dict.fromkeys(filter(None, refusals))))


async def _refusal(start: Coroutine[Any, Any, None]) -> str:
    try:
        await start
    except Refused as error:
        return str(error)
    return ""


async def stop_all(nodes: Iterable[RedisNode]) -> None:
    """Stop all nodes at the same time."""
    await at_once(node.stop() for node in nodes)


async def at_once(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at the same time; return their results."""
    started = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    return await gatherResults(started, consumeErrors=True)
