"""Backoff: pauses between attempts, each twice as long as the one before, up to a limit."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import frozen

JITTER = (0.5, 1.0)
EXACT = (1.0, 1.0)
"""A jitter that changes no pause."""


@frozen(kw_only=True)
class Backoff:
    """A rule for pauses; each series of attempts calls `pauses` once.

    :param first_s: the first pause, in seconds.
    :param longest_s: the limit of a pause, before jitter.
    :param jitter: each pause is multiplied by a random number between these two, so that processes
        that failed together do not try again together.
    """

    first_s: float
    longest_s: float
    jitter: tuple[float, float] = JITTER

    def pauses(self) -> Iterator[float]:
        """Yield pauses in seconds, without end."""
        pause = self.first_s
        while True:
            pause = min(pause, self.longest_s)
            yield pause * random.uniform(*self.jitter)  # noqa: S311 - no secret
            pause *= 2
