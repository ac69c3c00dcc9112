"""Ratio: limits the bytes that compressed data may become if no size is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ncps.errors import Corrupt

ALLOWANCE: Final = 64 * 1024 * 1024
"""Bytes that any input may become: data that begin with zeros need not be a bomb."""

USUAL: Final = 1000
"""Software shrinks to a third or a tenth; an empty disk image to a ten-thousandth or less."""


def most(size: int, ratio: int) -> int:
    """Return the most bytes that `size` compressed ones may become."""
    return max(ALLOWANCE, size * ratio)


class Ratio:
    """The counters of one decompression.

    :param limit: decompressed bytes for one compressed byte, at most.
    :param reached: called when there are more.
    """

    def __init__(self, limit: int, reached: Callable[[], object] = lambda: None) -> None:
        self._limit = limit
        self._reached = reached
        self._taken = 0
        self._given = 0

    def took(self, size: int) -> None:
        """Count compressed bytes; call this before `gave` for them."""
        self._taken += size

    def gave(self, size: int) -> None:
        """Count decompressed bytes. Raises Corrupt if there are too many."""
        self._given += size
        if self._given > most(self._taken, self._limit):
            self._reached()
            raise Corrupt(f"{self._taken} bytes became more than {self._limit} times as many")
