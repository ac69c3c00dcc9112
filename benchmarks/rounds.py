"""Rounds: contenders measured in turn, and what their figures come to.

Machines have moods. So all contenders of a point are measured in every round, in shuffled order,
and what counts is the median of the ratios within each round. A round with an error is repeated,
never averaged; so is the oddest one while the anchor's own figures spread too far.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from attrs import frozen

ANCHOR = "nginx"
OURS = "ncps"
MOST_REPEATS = 5
WIDEST_SPREAD = 2.0

Sample = Mapping[str, float]
"""Quantities by name, `errors` among them."""


@frozen
class Spread:
    """Median, least and greatest of what was measured."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        low, high = min(self.values), max(self.values)
        middle = format(self.median, spec)
        if len(self.values) == 1:
            return middle
        return f"{middle} [{format(low, spec)}..{format(high, spec)}]"


class RoundsError(Exception):
    """A point cannot be measured: it fails again and again."""


@frozen(kw_only=True)
class Series:
    """All rounds of one point: by round, contender and quantity."""

    rounds: tuple[Mapping[str, Sample], ...]
    repeats: int

    def spread(self, contender: str, quantity: str) -> Spread:
        """Return one quantity of one contender."""
        return Spread([one[contender][quantity] for one in self.rounds])

    def ratio(self, quantity: str, ours: str = OURS, anchor: str = ANCHOR) -> Spread:
        """Return one quantity of ours in units of the anchor's, round by round."""
        return Spread([one[ours][quantity] / one[anchor][quantity] for one in self.rounds])

    def difference(self, quantity: str, ours: str, anchor: str) -> Spread:
        """Return by how much ours exceeds the anchor's, round by round."""
        return Spread([one[ours][quantity] - one[anchor][quantity] for one in self.rounds])


def alternate(
    contenders: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    noise: random.Random,
    steady: str = "",
) -> Series:
    """Measure all contenders in every round. RoundsError.

    :param steady: quantity of the anchor whose spread is watched; empty for none.
    """
    done: list[Mapping[str, Sample]] = []
    repeats = 0
    while True:
        while len(done) < rounds:
            found = _round(contenders, noise)
            if any(sample["errors"] for sample in found.values()):
                repeats += 1
                if repeats > MOST_REPEATS:
                    raise RoundsError(f"errors again and again, the last: {found}")
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
    """Index of the value farthest from the middle, if the values spread too far."""
    if max(values) <= WIDEST_SPREAD * min(values):
        return None
    middle = median(values)
    return max(range(len(values)), key=lambda i: max(values[i] / middle, middle / values[i]))
