"""References: the store paths that a store path refers to.

There may be a hundred thousand of them, and a signature is made of all, sorted. What is dear about
that is done once: where there are many, when they are made, which should then be in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, Self

from ncps.nix.storepath import StorePath

LONG: Final = 1000
"""References of which a thread should make a narinfo: below, that takes a few milliseconds."""

_RUN: Final = 4096
"""Texts sorted at once: nothing else runs meanwhile, in no thread."""


class References(tuple[StorePath, ...]):  # noqa: SLOT001 - what is worked out is kept
    """Paths, each once, in the order in which they came."""

    @classmethod
    def of(cls, paths: Iterable[StorePath]) -> Self:
        """Make them of paths of which some may be the same; of themselves at no cost."""
        if isinstance(paths, cls):
            return paths
        made = cls(dict.fromkeys(paths))
        if made.is_long:
            _ = made.joined, made.bases
        return made

    @property
    def is_long(self) -> bool:
        """Whether it is too dear to look through them on the reactor's thread."""
        return len(self) > LONG

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Whole paths, sorted as Nix sorts them."""
        return tuple(in_order([str(path) for path in self]))

    @cached_property
    def joined(self) -> str:
        """The same as they are signed."""
        return ",".join(self.texts)

    @cached_property
    def bases(self) -> str:
        """Base names in the order of the paths, as a narinfo has them."""
        return " ".join([path.base for path in self])


def in_order(texts: Sequence[str]) -> list[str]:
    """Sort texts, and let other threads run now and then meanwhile."""
    runs: list[str] = []
    for start in range(0, len(texts), _RUN):
        runs.extend(sorted(texts[start : start + _RUN]))
    runs.sort()  # merges what is in order already
    return runs
