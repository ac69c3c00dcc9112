"""Rounds: the contenders of a point are measured in turn, and their values compared.

The speed of a machine changes with time. So every round measures all contenders, in shuffled order,
and the result is the median of the ratios within each round. A round with an error is repeated. The
round with the most unusual value of the anchor is repeated while the anchor's values vary too much.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from attrs import frozen

ANCHOR = "nginx"
OURS = "ncps"
GO = "Go"
MOST_REPEATS = 5
WIDEST_SPREAD = 2.0

Sample = Mapping[str, float]
"""Quantities by name, `errors` among them."""


@frozen
class Spread:
    """The measured values, with their median, minimum and maximum."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        low, high = min(self.values), max(self.values)
        middle = format(self.median, spec)
        if len(self.values) == 1:
            return middle
        return f"{middle} [{format(low, spec)}..{format(high, spec)}]"


class RoundsError(Exception):
    """A point cannot be measured, since too many rounds fail."""


@frozen(kw_only=True)
class Series:
    """All rounds of one point: by round, contender and quantity."""

    rounds: tuple[Mapping[str, Sample], ...]
    repeats: int

    def spread(self, contender: str, quantity: str) -> Spread:
        """Return the values of one quantity of one contender."""
        return Spread([one[contender][quantity] for one in self.rounds])

    def has(self, contender: str, quantity: str) -> bool:
        """Whether a quantity of a contender was measured."""
        return quantity in self.rounds[0].get(contender, ())

    def ratio(self, quantity: str, ours: str = OURS, anchor: str = ANCHOR) -> Spread:
        """Return a quantity of `ours`, divided by that of `anchor` in the same round."""
        return Spread([one[ours][quantity] / one[anchor][quantity] for one in self.rounds])

    def difference(self, quantity: str, ours: str, anchor: str) -> Spread:
        """Return a quantity of `ours` minus that of `anchor` in the same round."""
        return Spread([one[ours][quantity] - one[anchor][quantity] for one in self.rounds])


def alternate(
    contenders: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    noise: random.Random,
    steady: str = "",
) -> Series:
    """Measure all contenders in every round. Raises RoundsError if too many rounds fail.

    :param steady: the quantity of the anchor that must not vary too much; empty for none.
    """
    done: list[Mapping[str, Sample]] = []
    repeats = 0
    while True:
        while len(done) < rounds:
            found = _round(contenders, noise)
            if any(sample["errors"] for sample in found.values()):
                repeats += 1
                if repeats > MOST_REPEATS:
                    raise RoundsError(f"{repeats} rounds had errors, the last: {found}")
                continue
            done.append(found)
        odd = _oddest([one[ANCHOR][steady] for one in done]) if steady else None
        if odd is None or repeats >= MOST_REPEATS:
            return Series(rounds=tuple(done), repeats=repeats)
        repeats += 1
        del done[odd]


def _round(
    contenders: Mapping[str, Callable[[], Sample]], noise: random.Random
) -> Mapping[str, Sample]:
    names = list(contenders)
    noise.shuffle(names)
    return {name: contenders[name]() for name in names}


def _oddest(values: Sequence[float]) -> int | None:
    """Return the index of the value farthest from the median, if the values vary too much."""
    if max(values) <= WIDEST_SPREAD * min(values):
        return None
    middle = median(values)
    return max(range(len(values)), key=lambda i: max(values[i] / middle, middle / values[i]))
