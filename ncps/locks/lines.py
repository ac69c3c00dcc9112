"""Lines: who in this process is next for a name, first come first served."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import DeferredLock

Leave = Callable[[], None]
"""Ends a turn; calling it twice is harmless."""


@define(eq=False)
class _Place:
    lock: DeferredLock
    interested: int = 0


class Lines:
    """One line for each name; a name is forgotten when nobody stands in its line."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    async def turn(self, name: str) -> Leave:
        """Wait for one's turn (cancellable); return what ends it."""
        place = self._places.setdefault(name, _Place(DeferredLock()))
        place.interested += 1
        try:
            await place.lock.acquire()
        except BaseException:
            self._left(name, place)
            raise
        is_over = False

        def leave() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                place.lock.release()
                self._left(name, place)

        return leave

    def _left(self, name: str, place: _Place) -> None:
        place.interested -= 1
        if not place.interested:
            del self._places[name]
