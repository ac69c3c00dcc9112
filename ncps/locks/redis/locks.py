"""Leases in Redis: at one server, or at a majority of several independent ones (Redlock).

Each server has a key for each lease; see `ncps.locks.redis.node`. To take a lease, a process asks
all servers at the same time, with one token, and has the lease as soon as a majority has granted
it. Each attempt has its own token, so that it can be repeated if an answer was lost, and only the
holder renews and releases.

    granted by a majority            held; the holder asks the other servers again
    another process has a majority   taken
    no process has a majority        all give back, and ask again after a random time
    no majority answers              Unavailable

A server that comes back, or has lost its memory, gets the key again from the holder, if the holder
certainly still has a majority. So a lease survives if servers restart one after the other.

The fence of a lease is the largest number that a server has granted. A majority of the servers has
this number before the lease is held, so any later majority grants a larger one. The clocks of the
servers may differ. To make them agree immediately, a process asks for a number slightly ahead of
the fastest clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger

from ncps.aio.keyed import KeyedEvent
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import sleep
from ncps.errors import Unavailable
from ncps.locks.redis.ballot import PATIENCE_S, Ballot, majority
from ncps.locks.redis.grant import Holder, RedisGrant, Share
from ncps.locks.redis.node import RedisNode, start_all, stop_all
from ncps.locks.shared import LeaseBackend, since_boot

ATTEMPTS: Final = 4
"""Attempts to take a lease if several processes get parts of it; the longest pause doubles."""

AHEAD_S: Final = 0.1
"""Seconds ahead of the fastest clock for a requested fence; a command rarely takes longer."""


class RedisBackend(LeaseBackend):
    """The leases of one process at one or several servers.

    :param nodes: at least one.
    :param ttl_of: returns the TTL in seconds for the name of a lease.
    :param now: returns seconds of a monotonic clock.
    :param subject: the consequence for users while no majority answers, for the log.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        nodes: Sequence[RedisNode],
        *,
        ttl_of: Callable[[str], float],
        address: str = "",
        now: Callable[[], float] = since_boot,
        subject: str = "NARs that are not stored cannot be fetched",
    ) -> None:
        self.freed = KeyedEvent()
        self._reactor = reactor
        self._nodes = nodes
        self._ttl_of = ttl_of
        self._holder = Holder(clock=reactor, now=now, address=address)
        self._subject = subject
        self._tasks = Tasks(reactor)
        self._last_wish = 0
        self._is_reported_away = False
        for node in nodes:
            node.channels.on_release(self.freed.set, self.freed.set_all)
            node.on_turn(self._report)

    @property
    def trouble(self) -> str:
        away = self._away
        if len(self._nodes) - len(away) >= majority(len(self._nodes)):
            return ""
        if len(self._nodes) == 1:
            return away[0]
        return f"{len(away)} of {len(self._nodes)} Redis servers are away: {'; '.join(away)}"

    @property
    def _away(self) -> list[str]:
        """The reason of each server that is away."""
        return [node.trouble for node in self._nodes if node.trouble]

    async def start(self) -> None:
        try:
            await start_all(self._nodes)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        self._is_reported_away = True  # an intended end is not reported
        await self._tasks.stop(0.0)
        await stop_all(self._nodes)

    async def take(self, name: str) -> RedisGrant | None:
        for attempt in range(ATTEMPTS):
            patience = PATIENCE_S * 2**attempt
            grant = RedisGrant(
                self._holder, name, self._ttl_of(name), self._nodes, give_back=self._give_back
            )
            try:
                winner = await self._ask_all(grant, patience)
            except BaseException:
                self._abandon(grant, is_announced=True)
                raise
            if winner == grant.token:
                return grant
            # Not announced: all waiting processes would ask again immediately, also this one.
            self._abandon(grant, is_announced=False)
            if winner is not None:
                break
            await sleep(self._reactor, random.uniform(0, patience))  # noqa: S311 - no secret
        return None

    async def holder(self, name: str) -> str:
        ballot = Ballot(self._reactor, len(self._nodes))
        for node in self._nodes:
            node.errands.start("find a holder", ballot.entering(node.holder(name)))
        found = await ballot.result()
        return ballot.leading if found is None else found

    async def _ask_all(self, grant: RedisGrant, patience_s: float) -> str | None:
        """Make one attempt; return the token that a majority of the servers has.

        If that is the token of the grant, the lease is held, and renewed from now on.
        """
        ballot = Ballot(self._reactor, len(self._nodes))
        wish = self._wish()
        for share in grant.shares:
            taking = ballot.entering(grant.take_share(share, wish))
            share.work.append(self._tasks.start("take a lease", taking))
        winner = await ballot.result(patience_s)
        if winner == grant.token:
            await self._agree_on_fence(grant)
            if grant.is_lost:
                raise Unavailable("the servers of the leases are too slow", timed_out=True)
            for share in grant.shares:
                share.work.append(self._tasks.start("keep a lease", grant.keep(share)))
        return winner

    def _wish(self) -> int:
        """Return a fence that no known server has exceeded; 0 for any.

        The clocks of servers that are away count as well, because they have made fences.
        """
        ahead = [node.ahead_s for node in self._nodes if node.ahead_s is not None]
        if len(self._nodes) == 1 or not ahead:
            return 0
        wish = int((self._holder.now() + max(ahead) + AHEAD_S) * 1e6)
        self._last_wish = max(self._last_wish + 1, wish)
        return self._last_wish

    async def _agree_on_fence(self, grant: RedisGrant) -> None:
        """Set the fence at a majority of the servers. Raises Unavailable if that fails."""
        grant.fence = fence = max(share.fence for share in grant.shares)
        known = sum(share.fence == fence for share in grant.shares)
        ballot = Ballot(self._reactor, len(self._nodes))
        for share in grant.shares:
            if share.fence == fence:
                ballot.vote("")
            elif share.fence or known < majority(len(self._nodes)):
                # Also at servers that have not granted the lease: they only need the number.
                work = ballot.entering(share.node.raise_fence(fence))
                share.node.errands.start("raise the fence", work)
        await ballot.result()

    async def _give_back(self, grant: RedisGrant) -> None:
        """Release at all servers, and wait for a majority; at the others the lease expires."""
        ballot = Ballot(self._reactor, len(self._nodes))
        for share in grant.shares:
            share.rest()
            if share.may_exist:
                work = share.node.release(grant.name, grant.token, is_announced=True)
                share.node.errands.start("release a lease", ballot.entering(work))
            else:
                ballot.vote("")
        try:
            await ballot.result()
        except Unavailable as error:
            self._log.debug(
                "lease {name} was not released: {reason}", name=grant.name, reason=str(error)
            )

    def _abandon(self, grant: RedisGrant, *, is_announced: bool) -> None:
        """Release in the background all shares that an attempt has or may have."""
        for share in grant.shares:
            share.rest()
            if share.may_exist:
                work = self._take_back(grant, share, is_announced=is_announced)
                share.node.errands.start("take back a lease", work)

    async def _take_back(self, grant: RedisGrant, share: Share, *, is_announced: bool) -> None:
        try:
            await share.node.client.up(grant.ttl)
            await share.node.release(grant.name, grant.token, is_announced=is_announced)
        except Unavailable:
            pass  # the share has expired

    def _report(self) -> None:
        """Log that a majority has gone away or come back; a single server logs that itself."""
        is_away = bool(self.trouble)
        if len(self._nodes) == 1 or is_away == self._is_reported_away:
            return
        self._is_reported_away = is_away
        if is_away:
            self._log.warn(
                "{away} of {servers} Redis servers are away, {subject}: {reasons}",
                away=len(self._away),
                servers=len(self._nodes),
                subject=self._subject,
                reasons="; ".join(self._away),
            )
        else:
            self._log.info("enough Redis servers answer again")
