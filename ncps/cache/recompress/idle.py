"""Idleness: whether the machine and this process have time for background work.

The machine is idle if its load average of the last minute, without the background work of ncps, is
at most a given part of its processors. This process is idle if it receives no NAR and has used
little of a processor since the last sample. The background work has the lowest priority, so a wrong
answer costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

OWN_SHARE: Final = 0.2
"""Part of a processor that an idle process uses, at most. Some hundred requests a second take as
much, or large NARs at a bit less than 1 Gbit/s."""
SAMPLE_S: Final = 1.0
"""Seconds between two samples of that use, at least."""
ECHO_S: Final = 120.0
"""Seconds for which ended background work still raises the load average."""


class Idleness:
    """Decides whether the machine and this process are idle.

    :param load: returns the load average of the last minute, or None if it is unknown. With an
        unknown load the machine never counts as idle.
    :param used: returns the processor time of this process in seconds.
    :param may_work: returns whether all other conditions allow work, such as the hour of the day.
    :param most: load of an idle machine without the background work, at most.
    :param own: load that the background work adds.
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
        """Note that background work begins or has just ended."""
        self._worked_at = self._clock.seconds()

    def is_idle(self) -> bool:
        """Return whether background work may run now."""
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
        """Return the part of the load average that may come from recent background work."""
        if self._worked_at is None or self._clock.seconds() - self._worked_at > ECHO_S:
            return 0.0
        return self._own
