"""Ballot: one question to several servers, which a majority of them decides.

A majority is more than half of all servers, including those that are away. Two majorities have at
least one server in common. So two processes cannot have one lease while all servers keep their
memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import Wakeup, within
from ncps.errors import Unavailable
from ncps.locks.keeper import ATTEMPTS

PATIENCE_S = 0.1
"""Seconds to wait for the other servers if a majority has answered, but does not agree."""


def majority(servers: int) -> int:
    """Return the size of a majority of this number of servers."""
    return servers // 2 + 1


class Ballot:
    """The answers of all servers to one question; one coroutine waits for the result.

    :param servers: number of servers; each votes or fails once.
    """

    def __init__(self, clock: IReactorTime, servers: int) -> None:
        self._clock = clock
        self._servers = servers
        self._votes: Counter[str] = Counter()
        self._failures: list[Unavailable] = []
        self._change = Wakeup()

    @property
    def leading(self) -> str:
        """The most frequent answer so far that is not empty; empty if there is none."""
        said = [(count, answer) for answer, count in self._votes.items() if answer]
        return max(said)[1] if said else ""

    def vote(self, answer: str) -> None:
        """Count the answer of a server."""
        self._votes[answer] += 1
        self._change.wake()

    def fail(self, error: Unavailable) -> None:
        """Count a server that gave no answer."""
        self._failures.append(error)
        self._change.wake()

    async def entering(self, answer: Awaitable[str | None]) -> None:
        """Wait for the answer of a server, and count it; None is an empty answer."""
        try:
            self.vote(await answer or "")
        except Unavailable as error:
            self.fail(error)
        except BaseException:
            self.fail(Unavailable("stopped"))
            raise

    async def result(self, patience_s: float = PATIENCE_S) -> str | None:
        """Return the answer of a majority; None if the servers disagree.

        The caller gives each server a deadline. Raises Unavailable if no majority answers.
        """
        quorum = majority(self._servers)
        while True:
            answered = self._votes.total()
            still_out = self._servers - answered - len(self._failures)
            answer, most = max(self._votes.items(), key=_count, default=("", 0))
            if most >= quorum:
                return answer
            if answered + still_out < quorum:
                raise self._failure()
            if answered < quorum:
                await self._change.wait()
            elif most + still_out < quorum or await self._is_out_of_patience(patience_s):
                return None

    async def _is_out_of_patience(self, patience_s: float) -> bool:
        try:
            await within(self._clock, patience_s, self._change.wait())
        except DeferredTimeout:
            return True
        return False

    def _failure(self) -> Unavailable:
        if self._servers == 1:
            return self._failures[0]
        return Unavailable(
            f"{len(self._failures)} of {self._servers} Redis servers give no answer, and leases"
            f" need {majority(self._servers)}: {'; '.join(map(str, self._failures))}",
            retry_after=ATTEMPTS.longest_s,
            timed_out=any(failure.timed_out for failure in self._failures),
        )


def _count(vote: tuple[str, int]) -> int:
    return vote[1]
