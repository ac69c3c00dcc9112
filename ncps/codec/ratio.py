"""Ratio: bounds the bytes that little input may become, where no size is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ncps.errors import Corrupt

ALLOWANCE: Final = 64 * 1024 * 1024
"""Bytes that any input may become: what begins with zeros is no bomb yet."""

USUAL: Final = 1000
"""Software shrinks to a third or a tenth; an empty disk image to a ten-thousandth and less."""


def most(size: int, ratio: int) -> int:
    """Return the most bytes that `size` compressed ones may become."""
    return max(ALLOWANCE, size * ratio)


class Ratio:
    """Follows one decompression.

    :param limit: bytes out for one byte in.
    :param reached: called when there are more.
    """

    def __init__(self, limit: int, reached: Callable[[], object] = lambda: None) -> None:
        self._limit = limit
        self._reached = reached
        self._taken = 0
        self._given = 0

    def took(self, size: int) -> None:
        """Count bytes in; before those they become."""
        self._taken += size

    def gave(self, size: int) -> None:
        """Count bytes out. Raises Corrupt if there are too many."""
        self._given += size
        if self._given > most(self._taken, self._limit):
            self._reached()
            raise Corrupt(f"{self._taken} bytes became more than {self._limit} times as many")
