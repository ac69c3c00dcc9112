"""RedisGrant: a lease that a majority of Redis servers has granted.

A share of a lease is certain until its TTL has passed since the last renewal was *sent*, minus the
possible drift between two clocks. After that it counts as lost, even if its server says otherwise
later. A lease is held while a majority of its shares is certain.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.waiting import sleep
from ncps.errors import Unavailable
from ncps.locks.redis.ballot import majority
from ncps.locks.redis.client import NotSent
from ncps.locks.redis.node import RedisNode

DRIFT: Final = 0.01
"""The possible drift between two clocks, as a part of the TTL."""


class Share:
    """The part of a lease at one server.

    :ivar fence: the number that the server granted; 0 if it has granted none.
    :ivar until: when the share ends unless it is renewed; 0 if the server does not have it.
    :ivar may_exist: whether the server may have the key of this lease.
    :ivar work: the tasks that take or renew the share.
    """

    def __init__(self, node: RedisNode) -> None:
        self.node = node
        self.fence = 0
        self.until = 0.0
        self.may_exist = False
        self.work: list[Deferred[None]] = []

    def rest(self) -> None:
        """Stop taking and renewing the share."""
        for work in self.work:
            work.cancel()


@frozen(kw_only=True)
class Holder:
    """The process that holds leases.

    :param now: returns seconds of a monotonic clock.
    :param address: of this process for others.
    """

    clock: IReactorTime
    now: Callable[[], float]
    address: str


class RedisGrant:
    """A lease in Redis; it is renewed until it is given back or lost.

    :ivar fence: 0 until the lease is held.
    """

    _log = Logger()

    def __init__(
        self,
        holder: Holder,
        name: str,
        ttl: float,
        nodes: Sequence[RedisNode],
        *,
        give_back: Callable[[RedisGrant], Awaitable[None]],
    ) -> None:
        self.name = name
        self.ttl = ttl
        self.token = secrets.token_hex(16)
        self.shares = [Share(node) for node in nodes]
        self.fence = 0
        self._holder = holder
        self._give_back = give_back
        self._is_lost = False
        self._is_reported = False

    @property
    def is_lost(self) -> bool:
        """Whether another process may have the lease; only for a lease that was held."""
        if not self._is_lost:
            now = self._holder.now()
            held = sum(now < share.until for share in self.shares)
            # For ever: another process may have held the lease.
            self._is_lost = held < majority(len(self.shares))
        return self._is_lost

    async def give_back(self) -> None:
        """See `ncps.locks.shared.Grant`."""
        await self._give_back(self)

    async def take_share(self, share: Share, at_least: int) -> str:
        """Ask one server; return the token that has the lease there.

        Raises Unavailable if the server is away.

        :param at_least: the smallest allowed fence.
        """
        sent = self._holder.now()
        share.may_exist = True
        try:
            fence, token = await share.node.take(
                self.name, self.token, self.ttl, at_least=at_least, address=self._holder.address
            )
        except NotSent:
            share.may_exist = False
            raise
        if token == self.token:
            share.fence = fence
            self._extend(share, sent)
        else:
            share.may_exist = False
        return token

    async def keep(self, share: Share) -> None:
        """Renew a share of a held lease, or take it again, until the lease is lost."""
        pause = self.ttl / (3 if share.until else 12)
        while await self._is_held_after(pause):
            try:
                is_ours = await self._refresh(share)
            except Unavailable:
                is_ours = False
            pause = self.ttl / (3 if is_ours else 12)
        if not self._is_reported:
            self._is_reported = True
            self._log.warn("lease {name} was lost", name=self.name)

    async def _is_held_after(self, seconds: float) -> bool:
        """Wait, unless the lease is lost; return whether it is held afterwards."""
        if self.is_lost:
            return False
        await sleep(self._holder.clock, seconds)
        return not self.is_lost

    async def _refresh(self, share: Share) -> bool:
        """Renew a share; False if another process has it. Raises Unavailable if it is away."""
        if share.until > (sent := self._holder.now()):
            if await share.node.renew(self.name, self.token, self.ttl):
                self._extend(share, sent)
                return True
            share.until = 0.0
        if self.is_lost:
            return False
        return await self.take_share(share, self.fence) == self.token

    def _extend(self, share: Share, sent: float) -> None:
        """Extend a share after a positive answer, unless the lease is lost.

        :param sent: when the question was sent.
        """
        if not self.fence or not self.is_lost:
            share.until = sent + self.ttl * (1 - DRIFT)
