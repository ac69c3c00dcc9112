"""Loop lag: how late the reactor runs its timers, since single calls have blocked it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class LoopLag:
    """Looks every `interval` seconds and reports how many seconds late that was.

    :param observe: called on each look with the lag, 0 or more; must not raise.
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
        """Begin to look; once."""
        assert self._call is None, "already started"
        self._due = self._clock.seconds() + self._interval
        self._call = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Look no more; harmless when repeated."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._observe(max(0.0, self._clock.seconds() - self._due))
        self._call = None
        self.start()
