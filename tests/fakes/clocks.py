"""A clock for tests whose time of day can be set."""

from __future__ import annotations

from twisted.internet.task import Clock


class SetClock(Clock):
    """Its seconds only go on; `ahead` is what the time of day is more than they are."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 1_750_000_000.0

    def wall(self) -> float:
        seconds: float = self.seconds()
        return seconds + self.ahead
