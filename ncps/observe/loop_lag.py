"""Loop lag: how late the reactor runs its timers because single calls block it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class LoopLag:
    """A timer of `interval` seconds that reports how many seconds late it runs.

    :param observe: called with each lag, 0 or more; must not raise.
    """

    def __init__(
        self, clock: IReactorTime, observe: Callable[[float], object], interval: float = 1.0
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._interval = interval
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Start the timer; only once."""
        assert self._call is None, "already started"
        self._due = self._clock.seconds() + self._interval
        self._call = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Stop the timer; a further call does nothing."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._observe(max(0.0, self._clock.seconds() - self._due))
        self._call = None
        self.start()
