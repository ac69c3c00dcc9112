"""Beat: delays work by a moment, so that much of it can be done together."""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

PER_TURN: Final = 8
"""Waiters that wake in one turn of the reactor, at most: their work must not fill a turn."""


class Beat:
    """A timer that wakes all waiters together, when no further one has come for a while.

    :param pause_s: seconds after the last waiter; with 0, `wait` returns immediately.
    :param longest_s: seconds that the first waiter waits, at most.
    :param most: the sum of the weights of all waiters at which they wake immediately.
    """

    def __init__(self, clock: IReactorTime, pause_s: float, longest_s: float, most: int) -> None:
        self.pause_s = pause_s
        self._clock = clock
        self._longest_s = longest_s
        self._most = most
        self._waiting: deque[Deferred[None]] = deque()
        self._call: IDelayedCall | None = None
        self._latest = 0.0
        self._weight = 0

    async def wait(self, weight: int, *, is_urgent: bool = False) -> None:
        """Wait for the next beat; cancelling affects this waiter only.

        :param is_urgent: whether the beat comes after one pause, even if further waiters come.
        """
        if not self.pause_s:
            return
        now = self._clock.seconds()
        if self._call is None:
            self._latest, self._weight = now + self._longest_s, 0
        self._weight += weight
        if is_urgent:
            self.hurry()
        left = 0.0 if self._weight >= self._most else min(self.pause_s, self._latest - now)
        self._schedule(max(0.0, left))
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        await waiter

    def hurry(self) -> None:
        """Let the present waiters wait for one pause more, at most, even if others come."""
        self._latest = min(self._latest, self._clock.seconds() + self.pause_s)

    def _strike(self) -> None:
        self._call = None
        count = len(self._waiting)
        for _ in range(min(PER_TURN, count)):
            waiter = self._waiting.popleft()
            if not waiter.called:  # else it was cancelled
                waiter.callback(None)
        if count <= PER_TURN:
            return
        self._latest = self._clock.seconds()  # those that come now do not delay the others
        self._schedule(0.0)

    def _schedule(self, seconds: float) -> None:
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._strike)
        else:
            self._call.reset(seconds)
