"""Beat: delays work by a moment, so that much of it can be done together."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ncps.aio.waiting import Future


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
        self._next: Future[None] = Future()
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
            self._call = self._clock.callLater(self.pause_s, self._strike)
            self._next, self._latest, self._weight = Future(), now + self._longest_s, 0
        self._weight += weight
        if is_urgent:
            self.hurry()
        left = 0.0 if self._weight >= self._most else min(self.pause_s, self._latest - now)
        self._call.reset(max(0.0, left))
        await self._next.wait()

    def hurry(self) -> None:
        """Let the present waiters wait for one pause more, at most, even if others come."""
        self._latest = min(self._latest, self._clock.seconds() + self.pause_s)

    def _strike(self) -> None:
        self._call = None
        self._next.succeed(None)
