"""The end of a process: how long running work may continue, and a second signal that cuts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import Future, within

AFTERMATH_S: Final = 5.0
"""Seconds that each quick step of the end may take."""
TIDY_S: Final = 20.0
"""Seconds that all these steps together may take."""
CUT_AFTERMATH_S: Final = 0.5
"""Seconds that each of these steps may take after a cut."""


class Ending:
    """One deadline for all work that ends slowly.

    :param delay_s: seconds for which the process still serves everything, though `/readyz` says no.
    :param drain_s: seconds after the delay for running work.
    :ivar is_cut: whether the process has stopped waiting for work.
    """

    def __init__(self, clock: IReactorTime, *, delay_s: float, drain_s: float) -> None:
        self.is_cut = False
        self.delay_s = delay_s
        self.drain_s = drain_s
        self._clock = clock
        self._deadline = 0.0
        self._cuts: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Set the deadline, counted from now."""
        self._deadline = self._clock.seconds() + self.delay_s + self.drain_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; 0 when it is over, and after a cut."""
        return 0.0 if self.is_cut else max(0.0, self._deadline - self._clock.seconds())

    @property
    def longest_s(self) -> float:
        """Seconds that the whole end may take."""
        return self.delay_s + self.drain_s + TIDY_S

    @property
    def aftermath_s(self) -> float:
        """Seconds that a quick step may take now."""
        return CUT_AFTERMATH_S if self.is_cut else AFTERMATH_S

    def hurry(self, drain_s: float) -> None:
        """Skip the delay, and allow at most `drain_s` seconds from now."""
        self.delay_s = 0.0
        self.drain_s = min(self.drain_s, drain_s)
        self._deadline = min(self._deadline, self._clock.seconds() + drain_s)

    def on_cut(self, call: Callable[[], object]) -> None:
        """Register a function to call at the cut; call it now if the cut has happened."""
        if self.is_cut:
            call()
        else:
            self._cuts.append(call)

    def cut(self) -> None:
        """End all waiting; idempotent."""
        self.is_cut = True
        cuts, self._cuts = self._cuts, []
        for call in cuts:
            call()

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, at most until the deadline or a cut."""
        cut: Future[None] = Future()

        def end() -> None:
            cut.succeed(None)

        self._cuts.append(end)
        try:
            await within(self._clock, min(seconds, self.left_s), cut.wait())
        except DeferredTimeout:
            pass
        finally:
            if end in self._cuts:
                self._cuts.remove(end)
