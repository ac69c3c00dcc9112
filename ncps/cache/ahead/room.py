"""Room: whether downloads and store have room for a NAR that is fetched ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ncps.cache.world import World

MAX_IN_FLIGHT: Final = 16 * 1024 * 1024
"""No further NAR is begun while this many bytes are in flight; the last NAR may exceed it."""


class NarRoom:
    """The room for NARs that are fetched ahead.

    :param most_stored: see `AheadRules`.
    :param refused: called for each NAR that has no room.
    :ivar in_flight: bytes of the NARs that are being fetched.
    """

    def __init__(self, world: World, most_stored: int, refused: Callable[[], object]) -> None:
        self.in_flight = 0
        self._admission = world.admission
        self._inventory = world.inventory
        self._most_stored = most_stored
        self._refused = refused

    @property
    def is_taken(self) -> bool:
        """Whether too many bytes are in flight to begin another NAR."""
        return self.in_flight >= MAX_IN_FLIGHT

    def is_beside_clients(self, size: int) -> bool:
        """Return whether a download of this size would make no client's download wait."""
        return self._answer(self._admission.has_room_beside(size))

    async def is_in_store(self) -> bool:
        """Return whether the store has room for all NARs that are in flight.

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
