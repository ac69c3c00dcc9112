"""Room: whether downloads and store have room for a NAR that is fetched ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ncps.cache.ahead.rules import AheadRules
from ncps.cache.world import World

MAX_IN_FLIGHT: Final = 16 * 1024 * 1024
"""No further NAR is begun while this many bytes are in flight; the last NAR may exceed it."""

PART: Final = 4
"""At most one of so many downloads is ahead, or `at_once` of them: while NARs arrive faster than
they are stored, further ones must wait, because a NAR without a place is dropped."""


class NarRoom:
    """The room for NARs that are fetched ahead.

    :param refused: called for each NAR that has no room.
    """

    def __init__(self, world: World, rules: AheadRules, refused: Callable[[], object]) -> None:
        self._in_flight = self._count = 0
        self._admission = world.admission
        self._inventory = world.inventory
        self._at_once = rules.at_once
        self._most_stored = rules.most_stored
        self._refused = refused

    @property
    def is_taken(self) -> bool:
        """Whether too many NARs or bytes are in flight to begin another NAR."""
        most = max(self._at_once, self._admission.most // PART)
        return self._in_flight >= MAX_IN_FLIGHT or self._count >= most

    def take(self, size: int) -> None:
        """Note a NAR that begins: it is in flight until it is stored."""
        self._in_flight += size
        self._count += 1

    def give(self, size: int) -> None:
        """Note a NAR that is stored, or has failed."""
        self._in_flight -= size
        self._count -= 1

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
        return self._answer(stored + self._in_flight <= self._most_stored)

    def _answer(self, has_room: bool) -> bool:
        if not has_room:
            self._refused()
        return has_room
