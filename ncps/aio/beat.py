"""Beat: delays work by a moment, so that much of it can be done together."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import Future


class Beat:
    """A timer that wakes all waiters `interval_s` after the first of them began to wait.

    :param interval_s: seconds; with 0, `wait` returns immediately.
    """

    def __init__(self, clock: IReactorTime, interval_s: float) -> None:
        self.interval_s = interval_s
        self._clock = clock
        self._next: Future[None] | None = None

    async def wait(self) -> None:
        """Wait for the next beat; cancelling affects this waiter only."""
        if not self.interval_s:
            return
        if self._next is None:
            self._next = Future()
            self._clock.callLater(self.interval_s, self._strike)
        await self._next.wait()

    def _strike(self) -> None:
        struck, self._next = self._next, None
        assert struck is not None
        struck.succeed(None)
