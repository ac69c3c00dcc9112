"""Idleness: whether the machine, and this process, have time for background work.

The machine is idle if its load average of the last minute, without our own background work, is a
small part of its processors. This process is idle if no NAR arrives and it has used little of a
processor since it was last looked at. Work runs at the lowest priority besides, so a wrong guess
costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

OWN_SHARE: Final = 0.2
"""Part of a processor that this process uses at most while it counts as idle: some hundred
requests a second, or less than a gigabit of large NARs."""
SAMPLE_S: Final = 1.0
"""Seconds over which that is measured, at least."""
ECHO_S: Final = 120.0
"""Seconds for which our own work is seen in the load average."""


class Idleness:
    """Looks at the machine.

    :param load: the load average of the last minute; None if nothing tells it: then the machine
        never counts as idle.
    :param used: seconds of a processor that this process has used so far.
    :param may_work: whether nothing else speaks against work: the hour, or a NAR that arrives.
    :param most: load that the machine may have beside our work.
    :param own: load that our work makes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        load: Callable[[], float | None],
        used: Callable[[], float],
        may_work: Callable[[], bool],
        most: float,
        own: float,
    ) -> None:
        self._clock = clock
        self._load = load
        self._used = used
        self._may_work = may_work
        self._most = most
        self._own = own
        self._worked_at: float | None = None
        self._sampled_at = clock.seconds()
        self._sampled = used()
        self._is_light = False

    def worked(self) -> None:
        """Note that our background work runs, or has just ended."""
        self._worked_at = self._clock.seconds()

    def is_idle(self) -> bool:
        """Whether there is time now."""
        self._sample()
        return self._is_light and self._is_calm() and self._may_work()

    def _is_calm(self) -> bool:
        load = self._load()
        return load is not None and load - self._echo() <= self._most

    def _sample(self) -> None:
        now = self._clock.seconds()
        passed = now - self._sampled_at
        if passed >= SAMPLE_S:
            used = self._used()
            self._is_light = used - self._sampled <= OWN_SHARE * passed
            self._sampled_at, self._sampled = now, used

    def _echo(self) -> float:
        """The part of the load average that may be our own work of the last minutes."""
        if self._worked_at is None or self._clock.seconds() - self._worked_at > ECHO_S:
            return 0.0
        return self._own
