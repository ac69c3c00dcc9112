"""Record: write a verified narinfo down, and keep it beside its NAR."""

from __future__ import annotations

from twisted.logger import Logger

from ncps.cache.narinfo import sidecar
from ncps.cache.narinfo.find import Lookup
from ncps.cache.narinfo.known import KnownNarInfo, known
from ncps.cache.narinfo.naming import agreeing, named
from ncps.cache.narinfo.paths import Paths
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import StorageFull, Unavailable
from ncps.ports import NarInfoEntry, NarRecord


class Records:
    """Writes narinfos into the catalog and the store.

    :param paths: told of each narinfo that is shown.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        state: CacheState,
        vetting: NarInfoVerifier,
        lookup: Lookup,
        paths: Paths,
    ) -> None:
        self._catalog = world.catalog
        self._store = world.narinfos
        self._disagreed = world.events.disagreed
        self._memory = state.memory
        self._negatives = state.negatives
        self._board = state.board
        self._vetting = vetting
        self._lookup = lookup
        self._paths = paths

    async def record(self, vetted: Vetted) -> KnownNarInfo:
        """Write a narinfo down and hold it; what cannot be written is served all the same."""
        entry, nar = vetted.entry, vetted.nar
        try:
            vetted, known_nar = await named(self._catalog, vetted)
            entry, nar = vetted.entry, vetted.nar
            self._appeared(vetted)
            row = await self._catalog.narinfo(entry.digest)
            if row is None or not await self._is_overruled(entry, *row):
                if row is not None:
                    entry = await self._vetting.apart(self._vetting.merged, entry, row[0])
                entry = agreeing(entry, known_nar)
                await self._catalog.add_narinfo(entry, nar)
            item = await self._lookup.look_up(entry.digest)
            if item is not None and item.is_stored:
                await self.keep_beside(entry)
        except (Unavailable, StorageFull) as error:
            self._appeared(vetted)
            self._log.warn(
                "narinfo {hash} is served but not recorded: {reason}",
                hash=entry.digest,
                reason=str(error),
            )
            item = None
        if item is None:
            item = known(entry, nar)
            self._memory.put(item)
        self._paths.note(item.nar.key, item.digest)
        return item

    def _appeared(self, vetted: Vetted) -> None:
        """Let what was absent be asked for again, under each name that the NAR may have."""
        self._board.appeared(vetted.entry.digest, vetted.nar.key)
        if vetted.conventional is not None:
            self._negatives.forget(vetted.conventional)

    async def _is_overruled(self, new: NarInfoEntry, old: NarInfoEntry, nar: NarRecord) -> bool:
        """Whether an older narinfo holds against a new one: the first verified one wins."""
        if new.narinfo.nar_hash == old.narinfo.nar_hash:
            return False
        holds = nar.is_stored and old.is_verified
        holds = holds and await self._vetting.apart(self._vetting.vouched, old) is not None
        self._disagreed()
        self._log.error(
            "{upstream} says NarHash {new} of {path}, {other} said {old}; the {winner} one holds",
            upstream=new.upstream,
            new=str(new.narinfo.nar_hash),
            path=old.narinfo.store_path.base,
            other=old.upstream,
            old=str(old.narinfo.nar_hash),
            winner="older" if holds else "newer",
        )
        return holds

    async def keep_beside(self, entry: NarInfoEntry) -> None:
        """Put the sidecar of a published NAR into the store."""
        text = sidecar.render(entry, self._vetting.name)
        try:
            await self._store.put(entry.digest, text)
        except (Unavailable, StorageFull) as error:
            self._log.warn(
                "narinfo {hash} is not kept beside its NAR: {reason}",
                hash=entry.digest,
                reason=str(error),
            )
