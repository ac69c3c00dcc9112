"""ExtraVerbs: logs, listings and debug information as the web layer sees them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ncps.aio.recent import RecentSet
from ncps.cache.answers import Cache
from ncps.cache.extras.answers import Extras, ServedExtra
from ncps.cache.extras.debuginfo import DebugLinks, Symbols
from ncps.cache.extras.kept import ExtraBounds, KeptExtras
from ncps.cache.extras.listings import Listings
from ncps.cache.extras.logs import Logs
from ncps.cache.extras.searching import ExtraSearch
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import ExtraStore, NarRecord


@frozen(kw_only=True)
class ExtraRules:
    """The decisions of an operator about extras.

    :param is_absent_when_away: as in `ncps.cache.core.Rules`.
    """

    bounds: ExtraBounds
    negative_ttl_s: float
    negative_entries: int
    is_absent_when_away: bool


class ExtraVerbs(Extras):
    """Composes the parts; see `Extras`."""

    def __init__(self, world: World, cache: Cache, store: ExtraStore, rules: ExtraRules) -> None:
        bounds = rules.bounds
        search = ExtraSearch(
            world,
            negatives=RecentSet(
                world.clock, ttl_s=rules.negative_ttl_s, max_entries=rules.negative_entries
            ),
            max_size=bounds.object_size,
            is_absent_when_away=rules.is_absent_when_away,
        )
        self.kept = KeptExtras(world, store, bounds)
        self._logs = Logs(world.threads, self.kept, search)
        self._links = DebugLinks(world, cache, self.kept, search)
        self._listings = Listings(world, cache, self.kept, search, self._links.found)
        self._symbols = Symbols(world, cache, self._links)

    @property
    def max_size(self) -> int:
        """See `Extras`."""
        return self.kept.bounds.object_size

    async def log(self, name: str, *, is_local: bool = False) -> ServedExtra:
        """See `Extras`."""
        return await self._logs.get(name, is_local=is_local)

    async def add_log(self, name: str, data: bytes, encoding: str = "") -> bool:
        """See `Extras`."""
        return await self._logs.add(name, data, encoding)

    async def listing(self, digest: str, *, is_local: bool = False) -> ServedExtra:
        """See `Extras`."""
        return await self._listings.get(digest, is_local=is_local)

    async def debug_link(self, build_id: str, *, is_local: bool = False) -> ServedExtra:
        """See `Extras`."""
        return await self._links.get(build_id, is_local=is_local)

    async def add_debug_link(self, build_id: str, text: bytes) -> bool:
        """See `Extras`."""
        return await self._links.add(build_id, text)

    async def symbols(self, build_id: str) -> ServedExtra:
        """See `Extras`."""
        return await self._symbols.open(build_id)

    def stored(self, nar: NarRecord) -> None:
        """Note that a NAR with debug information was stored just now."""
        self._listings.look_into(nar)

    def found(self, key: NarKey, build_ids: Sequence[str]) -> None:
        """Note the build IDs of the files with symbols in a NAR that was stored."""
        self._links.found_early(key, build_ids)
