"""BulkQuestions: the verbs for many paths, made from the core; see `answers.Bulk`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ncps.aio.bulkhead import Bulkhead
from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.bulk.answers import Bulk, Closure, PathState, Where
from ncps.cache.bulk.asking import Asking
from ncps.cache.bulk.closure import ClosureWalk
from ncps.cache.bulk.query import PathQuery
from ncps.cache.core import Core
from ncps.cache.world import World

AT_ONCE: Final = 8
"""Questions about many paths that are answered at the same time; further ones wait. Closures have
the same number of places of their own, because a slow reader holds one for minutes."""

QUEUE: Final = 100
PATIENCE_S: Final = 30.0
"""How many questions may wait for a place, and for how many seconds."""


def _places(world: World, what: str) -> Bulkhead:
    return Bulkhead(world.clock, what, size=AT_ONCE, queue=QUEUE, patience_s=PATIENCE_S)


class BulkQuestions(Bulk):
    """Answers questions about many paths.

    :param narinfo: see `Cache.narinfo`.
    """

    def __init__(
        self, world: World, core: Core, narinfo: Callable[[str], Awaitable[ServedNarInfo]]
    ) -> None:
        self._clock = world.clock
        self._core = core
        self._asking = Asking(world.clock, narinfo)
        self._queries = _places(world, "questions about many paths")
        self._closures = _places(world, "closures")

    async def query(self, digests: Sequence[str], *, ask: bool) -> list[PathState]:
        """See `Bulk`."""
        core = self._core
        query = PathQuery(
            core.records.among, core.state.negatives, core.nars.is_arriving, self._asking
        )
        async with self._queries:
            return await query.run(digests, ask=ask)

    async def closure(self, digest: str, *, fetch: bool) -> Closure:
        """See `Bulk`."""
        core = self._core
        await self._closures.acquire()
        walk = ClosureWalk(
            self._clock,
            self._closures,
            core.records.among,
            self._asking if fetch else None,
            core.nars.is_arriving,
            core.state.uses.narinfo,
        )
        try:
            root = await walk.begin(digest)
            if not root.narinfo:
                is_sure = root.where is Where.ABSENT
                outcome = Outcome.MISS if is_sure else Outcome.UNSURE
                raise Absent(f"no narinfo of {digest} is here", outcome=outcome)
        except BaseException:
            walk.close()
            raise
        return walk
