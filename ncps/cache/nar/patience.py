"""Patience: how long a download that gets no byte goes on asking."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between rounds through all sources; the last one repeats."""

OPENING_ROUNDS: Final = 2
"""Rounds until a download without a byte is given up: its clients wait for a status."""

OPENING_S: Final = 30.0
"""Seconds after which no further round begins for such a download."""


class Patience:
    """The patience with one download.

    :param resume_s: seconds without a byte after which a download that has some is given up.
    """

    def __init__(self, clock: IReactorTime, resume_s: float) -> None:
        self._clock = clock
        self._resume_s = resume_s
        self._rounds = 0
        self._since = clock.seconds()

    def renew(self) -> None:
        """Begin anew: the round that is over has brought something."""
        self._rounds = -1
        self._since = self._clock.seconds()

    def has_ended(self, *, has_bytes: bool) -> bool:
        """Count a round that is over, and say whether it was the last one."""
        self._rounds += 1
        waited_s = self._clock.seconds() - self._since
        if self._rounds < OPENING_ROUNDS and waited_s < OPENING_S:
            return False
        return waited_s >= self._resume_s or not has_bytes

    async def pause(self) -> None:
        """Wait before the next round, longer each time."""
        await deferLater(self._clock, PAUSES_S[min(max(self._rounds, 0), len(PAUSES_S) - 1)])
