"""At hand: a narinfo that no upstream has now, although its NAR is here under another name.

A client may have asked for a NAR by its upstream's name of the file, or by the name that an older
narinfo had for it. Then the NAR is stored under that name alone, or lies in the store without a
row. So before the cache refuses a recorded narinfo, it looks for the NAR under its other names:
first in the catalog, then in the store, as for a client that asks for the NAR.
"""

from __future__ import annotations

from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.nar.serve import Nars
from ncps.cache.narinfo.naming import agreeing, named
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.verify import Vetted
from ncps.cache.world import World
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey, conventional_key
from ncps.ports import NarInfoEntry, NarRecord


class AtHand:
    """Serves narinfos; looks for the NAR of a recorded one before it refuses the narinfo."""

    def __init__(self, world: World, narinfos: NarInfos, nars: Nars) -> None:
        self._catalog = world.catalog
        self._narinfos = narinfos
        self._nars = nars

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """Return a narinfo to serve. Raises NotFound, Unavailable or Corrupt as `NarInfos.get`."""
        try:
            return await self._narinfos.get(digest)
        except (NotFound, Unavailable, Corrupt) as error:
            if not _is_new_verdict(error) or not await self._has_found(digest):
                raise
        return await self._narinfos.get(digest)

    async def _has_found(self, digest: str) -> bool:
        """Find the NAR of a recorded narinfo; return whether it is stored under its name now."""
        try:
            row = await self._catalog.narinfo(digest)
            if row is None or row[1].is_stored:  # the narinfo was refused for another reason
                return False
            return await self._rename(*row) or await self._nars.is_here(row[1].key)
        except (NotFound, Unavailable, Corrupt, StorageFull):
            return False

    async def _rename(self, entry: NarInfoEntry, nar: NarRecord) -> bool:
        """Give a narinfo another name of its NAR under which that is stored; False if none is."""
        vetted, there = await named(self._catalog, Vetted(entry, nar, _conventional(entry)))
        if there is None or not there.is_stored or there.verified_at is None:
            return False
        await self._catalog.add_narinfo(agreeing(vetted.entry, there), vetted.nar)
        self._narinfos.changed(nar.key)
        self._narinfos.changed(there.key)
        return True


def _is_new_verdict(error: NcpsError) -> bool:
    """Return whether an error says that upstreams were asked just now, or could not be asked."""
    if isinstance(error, Absent):
        return error.outcome not in {Outcome.NEGATIVE, Outcome.RING}
    return bool(error.told)


def _conventional(entry: NarInfoEntry) -> NarKey | None:
    """Return the name that the upstream of a narinfo has for the file."""
    try:
        return conventional_key(entry.upstream_url)
    except Malformed:
        return None
