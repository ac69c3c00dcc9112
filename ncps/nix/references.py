"""References: the store paths that a store path refers to.

A path may have a hundred thousand of them, and its signature covers all, sorted. So they are kept
as one text, as in a narinfo. A hundred thousand objects would slow every garbage collection, and
their deletion, and no other thread runs in that time. Expensive work is done once. For many
references this is the constructor: call it in a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Final, Self, overload

from ncps.errors import Malformed
from ncps.nix.storepath import STORE_DIR, StorePath, is_base

LONG: Final = 1000
"""A narinfo with more references must be made in a thread; with fewer it takes milliseconds."""

_RUN: Final = 4096
"""Texts that are sorted in one step, during which no other thread runs."""

_SAMPLES: Final = 32
"""Texts of each run that are candidates for a cut."""


class References(Sequence[StorePath]):
    """A sequence of different paths, in the given order; equal to a tuple of the same paths.

    :param bases: their base names; the caller has checked them.
    """

    def __init__(self, bases: Sequence[str] = ()) -> None:
        self.bases = " ".join(bases)
        """Base names in the order of the paths, as a narinfo has them."""
        self._count = len(bases)
        if self.is_long:
            _ = self.joined

    @classmethod
    def of(cls, paths: Iterable[StorePath]) -> Self:
        """Make References from paths, without repetitions; return References unchanged."""
        if isinstance(paths, cls):
            return paths
        return cls(list({path.base: None for path in paths}))

    @classmethod
    def parse(cls, text: str, at_most: int) -> Self:
        """Read base names with blanks between them.

        Raises Malformed if one is invalid, or if there are more than `at_most`.
        """
        if text.count(" ") >= at_most:
            raise Malformed(f"References has more than {at_most} paths")
        once: dict[str, None] = {}  # `fromkeys` would let no other thread run
        for base in text.split(" "):
            if is_base(base):
                once[base] = None
            elif base:
                raise Malformed(f"References has one that is not a store path: {base[:256]!r}")
        return cls(list(once))

    @property
    def is_long(self) -> bool:
        """Whether a loop over all of them takes too long for the reactor's thread."""
        return self._count > LONG

    @cached_property
    def joined(self) -> str:
        """The whole paths as a signature covers them: in Nix's order, with commas between them."""
        return ",".join(self.texts)

    @property
    def texts(self) -> tuple[str, ...]:
        """The whole paths, in Nix's order."""
        return tuple([f"{STORE_DIR}/{base}" for base in in_order(self._split())])

    def without(self, path: StorePath) -> References:
        """Return all paths but this one; return the object itself if the path is not in it."""
        if path not in self:
            return self
        return References([base for base in self._split() if base != path.base])

    def _split(self) -> list[str]:
        return self.bases.split(" ") if self._count else []

    def __len__(self) -> int:
        return self._count

    def __contains__(self, path: object) -> bool:
        return isinstance(path, StorePath) and f" {path.base} " in f" {self.bases} "

    def __iter__(self) -> Iterator[StorePath]:
        return map(StorePath.parse_base, self._split())

    @overload
    def __getitem__(self, index: int) -> StorePath: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[StorePath, ...]: ...

    def __getitem__(self, index: int | slice) -> StorePath | tuple[StorePath, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, References):
            return self.bases == other.bases
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"References({self.bases!r})"


def in_order(texts: Sequence[str]) -> list[str]:
    """Sort texts, in steps of a few milliseconds between which other threads may run.

    It sorts runs, cuts all of them at the same values, and merges the pieces between two cuts. The
    values are samples of the runs, so a step has at most about 2/`_SAMPLES` of all texts.
    """
    runs = [sorted(texts[start : start + _RUN]) for start in range(0, len(texts), _RUN)]
    if len(runs) < 2:
        return runs[0] if runs else []
    samples = sorted([text for run in runs for text in run[:: _RUN // _SAMPLES]])
    found: list[str] = []
    starts = [0] * len(runs)
    for cut in [*samples[len(runs) :: len(runs)], None]:
        ends = [len(run) if cut is None else bisect_left(run, cut) for run in runs]
        pieces = [run[start:end] for run, start, end in zip(runs, starts, ends, strict=True)]
        found.extend(sorted(chain.from_iterable(pieces)))
        starts = ends
    return found
