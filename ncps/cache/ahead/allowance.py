"""Allowance: an amount for each minute, which comes back evenly."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

MINUTE_S: Final = 60.0


class Allowance:
    """An amount for each minute.

    :param amount: the bytes for one minute; all of it is there at the start.
    """

    def __init__(self, clock: IReactorTime, amount: int) -> None:
        self._clock = clock
        self._amount = amount
        self._left = float(amount)
        self._since = clock.seconds()

    def take(self, amount: int) -> bool:
        """Take an amount; take nothing and return False if less than that is left.

        An amount above the whole may be taken when the whole is left; the rest is then owed.
        """
        now = self._clock.seconds()
        come_back = (now - self._since) * self._amount / MINUTE_S
        self._left, self._since = min(self._amount, self._left + come_back), now
        if self._amount <= 0 or min(amount, self._amount) > self._left:
            return False
        self._left -= amount
        return True
