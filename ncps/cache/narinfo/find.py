"""Find: a narinfo that is known, in memory or in the catalog, and whether it may be shown.

A narinfo is shown only while its NAR can be had: its bytes are stored, are on their way, or its
upstream is not known to be away (P1).
"""

from __future__ import annotations

from collections.abc import Callable

from ncps.aio.clocks import wall_of
from ncps.cache.narinfo.known import KnownNarInfo, known
from ncps.cache.narinfo.naming import is_right
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.peering import trail

REFRESH_S = 3600.0
"""A narinfo whose NAR is not stored is asked for again after so long: upstreams collect garbage."""

EVICTED_REFRESH_S = 10.0
"""The same where the NAR was stored and is not any more: its narinfo may be from long ago, and a
client that is shown it counts on the NAR."""


class Lookup:
    """Finds narinfos without asking an upstream.

    :param is_arriving: whether a NAR is being downloaded right now.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        vetting: NarInfoVerifier,
        is_arriving: Callable[[NarKey], bool],
    ) -> None:
        self._wall = wall_of(world.clock)
        self._catalog = world.catalog
        self._upstreams = world.upstreams
        self._memory = state.memory
        self._vetting = vetting
        self._is_arriving = is_arriving

    async def find(self, digest: str) -> KnownNarInfo | None:
        """Return what is known and may be shown now."""
        item = self._memory.get(digest)
        if item is None or not self.may_show(item):  # another replica may have stored its NAR
            item = await self.look_up(digest)
        return item if item is not None and self.may_show(item) else None

    async def look_up(self, digest: str) -> KnownNarInfo | None:
        """Read the catalog, and hold what it says unless that may be old already."""
        changes = self._memory.changes
        row = await self._catalog.narinfo(digest)
        entry = None if row is None else await self._vetting.apart(self._vetting.vouched, row[0])
        if row is None or entry is None or not is_right(entry.narinfo, row[1]):
            return None
        item = known(entry, row[1])
        if self._memory.changes == changes:
            self._memory.put(item)
        return item

    def may_show(self, item: KnownNarInfo) -> bool:
        """Whether its NAR can be had now, as far as is known."""
        if item.is_stored:
            return True
        if trail.current().has_come_round:  # nobody would be asked for its NAR, either
            return False
        if self._is_arriving(item.nar.key):
            return True
        fresh_s = EVICTED_REFRESH_S if item.nar.was_stored else REFRESH_S
        is_fresh = abs(self._wall() - item.fetched_at) < fresh_s  # from the future: a clock was set
        return is_fresh and self._upstreams.is_reachable(item.upstream)
