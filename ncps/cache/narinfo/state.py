"""State: what the parts of the core share in memory, and what a restart forgets."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from ncps.aio.recent import RecentSet
from ncps.cache.narinfo.invalidation import Invalidation
from ncps.cache.narinfo.known import NarInfoMemory
from ncps.cache.narinfo.last_use import LastUse
from ncps.cache.world import World


@frozen
class CacheState:
    """Made once for a World.

    :param memory: narinfos that were read or fetched.
    :param negatives: hashes and NARs that no upstream had a moment ago.
    :param uses: times of last use that are not written yet.
    :param board: tells the other processes of this cache what has changed, and is told by them.
    """

    memory: NarInfoMemory
    negatives: RecentSet
    uses: LastUse
    board: Invalidation

    @classmethod
    def of(
        cls, world: World, *, memory_size: int, negative_ttl_s: float, negative_entries: int
    ) -> Self:
        """Make it, and listen to the other processes.

        :param memory_size: bytes of narinfos.
        """
        memory = NarInfoMemory(memory_size)
        negatives = RecentSet(world.clock, ttl_s=negative_ttl_s, max_entries=negative_entries)
        board = Invalidation(world.notices, world.tasks, memory, negatives)
        board.listen()
        return cls(memory, negatives, LastUse(world.clock, world.catalog), board)
