"""Carrier: notices through one Redis server, or through several, of which some may be away.

A line goes to all servers, and comes back from each server that received it. With several servers
each line begins with its own number, so that a process recognizes repetitions.

If a line has reached a majority, each process that listens to a majority receives it. So notices
may be missing only if this process listened to fewer servers; only then there is a gap.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.aio.recent import RecentSet
from ncps.locks.notices import SharedNotices
from ncps.locks.redis.ballot import Ballot, majority
from ncps.locks.redis.node import RedisNode

LATE_S: Final = 60.0
"""Seconds for which numbers of lines are remembered; no working server is later by more."""
MOST_NUMBERS: Final = 10_000
"""Numbers of lines that are remembered, at most."""
LONGEST_NUMBER: Final = 40


class Carrier:
    """A sender of lines to all servers; it passes each arriving line on once."""

    def __init__(self, clock: IReactorTime, nodes: Sequence[RedisNode]) -> None:
        self._clock = clock
        self._nodes = nodes
        self._quorum = majority(len(nodes))
        self._sender = secrets.token_hex(8)
        self._numbers = count()
        self._received = RecentSet(clock, ttl_s=LATE_S, max_entries=MOST_NUMBERS)
        self._deliver: Callable[[str], None] = lambda _line: None
        self._missed: Callable[[], None] = lambda: None
        for node in nodes:
            node.channels.on_notice(self._receive, self._listens_again)

    def on_line(self, deliver: Callable[[str], None], missed: Callable[[], None]) -> None:
        """Call `deliver` with each line, `missed` when lines may have been lost."""
        self._deliver, self._missed = deliver, missed

    async def send(self, line: str) -> None:
        """Send a line to all servers, and wait for a majority of them.

        Raises Unavailable if no majority accepts it; some processes may receive it nevertheless.
        """
        if len(self._nodes) > 1:
            line = f"{self._sender}.{next(self._numbers)} {line}"
        ballot = Ballot(self._clock, len(self._nodes))
        for node in self._nodes:
            node.errands.start("send a notice", ballot.entering(node.publish(line)))
        await ballot.result()

    def _receive(self, line: str) -> None:
        if len(self._nodes) > 1:
            number, _, line = line.partition(" ")
            if len(number) > LONGEST_NUMBER or number in self._received:
                return
            self._received.add(number)
        self._deliver(line)

    def _listens_again(self) -> None:
        """Report a gap if this process listens to a majority again, and did not before."""
        if sum(node.channels.is_up for node in self._nodes) == self._quorum:
            self._missed()


def redis_notices(clock: IReactorTime, nodes: Sequence[RedisNode]) -> SharedNotices:
    """Make notices that use these servers."""
    carrier = Carrier(clock, nodes)
    notices = SharedNotices(carrier.send)
    carrier.on_line(notices.received, notices.missed)
    return notices
