"""Room: whether a NAR may be fetched ahead beside those of clients, and in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ncps.cache.world import World

MAX_IN_FLIGHT: Final = 16 * 1024 * 1024
"""Bytes of NARs in flight from which on no further one is begun; the last one may be larger."""


class NarRoom:
    """The room for NARs that are fetched ahead.

    :param most_stored: see `AheadRules`.
    :param refused: told of each NAR for which there is none.
    :ivar in_flight: bytes of those that are being fetched.
    """

    def __init__(self, world: World, most_stored: int, refused: Callable[[], object]) -> None:
        self.in_flight = 0
        self._admission = world.admission
        self._inventory = world.inventory
        self._most_stored = most_stored
        self._refused = refused

    @property
    def is_taken(self) -> bool:
        """Whether too much is in flight for a further one."""
        return self.in_flight >= MAX_IN_FLIGHT

    def is_beside_clients(self, size: int) -> bool:
        """Whether a download of this size would keep none of a client waiting."""
        return self._answer(self._admission.has_room_beside(size))

    async def is_in_store(self) -> bool:
        """Whether the store is far enough below its limit for all that is in flight.

        Raises Unavailable if the catalog cannot tell.
        """
        if not self._most_stored:
            return True
        stored = await self._inventory.stored_bytes()
        return self._answer(stored + self.in_flight <= self._most_stored)

    def _answer(self, has_room: bool) -> bool:
        if not has_room:
            self._refused()
        return has_room
