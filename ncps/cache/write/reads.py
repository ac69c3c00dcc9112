"""Reads for uploads: they are answered from the store, and no upstream is asked.

Before a client uploads a path, it asks whether the path is here. If an upstream's answer counted,
the client would not upload paths that only the upstream has, and this cache would depend on that
upstream. A stored path counts as here, also if it came from an upstream.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from ncps.aio.clocks import Ages
from ncps.cache.answers import NarStat, Outcome, ServedNar, ServedNarInfo
from ncps.cache.nar.stored import StoredNar, locate_stored, open_stored, stored_key
from ncps.cache.narinfo.state import KnownNarInfo
from ncps.cache.world import World
from ncps.cache.write.nars import KnownPaths, has_row
from ncps.errors import Corrupt, NotFound
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord, Replaced

SETTLED_S: Final = 60.0
"""Seconds after which a stored NAR must be visible in the store: a network file system may show
another machine a state of that age."""


class StoredOnly:
    """Answers from the store alone."""

    def __init__(self, world: World, known: KnownPaths) -> None:
        self._ages = Ages(world.clock)
        self._catalog = world.catalog
        self._store = world.nars
        self._threads = world.threads
        self._names = world.upstreams.names
        self._known = known

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """See `Uploads.narinfo`."""
        item = await self._known.records.find(digest)
        if item is not None and not item.nar.is_stored:  # another replica may have stored its NAR
            item = await self._known.records.look_up(digest)
        if item is None or not await self._is_there(item):
            raise NotFound(f"{digest} is not stored here")
        self._known.state.uses.narinfo(digest)
        return ServedNarInfo(
            text=item.text,
            tag=item.tag,
            outcome=Outcome.HIT,
            upstream=item.upstream_name,
            nar=item.nar,
        )

    async def _is_there(self, item: KnownNarInfo) -> bool:
        """Return whether row and store have a NAR: without its bytes the client must upload it."""
        nar = item.nar
        if nar.stored_at is None:
            return False
        if nar.stored_at > self._ages.before(SETTLED_S):
            return True
        if await self._store.stat(stored_key(nar)) is not None:
            return True
        await self._lose(nar, NotFound("it is not in the store"))
        return False

    async def nar(self, key: NarKey) -> ServedNar:
        """See `Uploads.nar`. Bytes without a row do not count: the client sends them."""
        if not await has_row(self._catalog, key):
            raise NotFound(f"{key.file_name} is not stored here")
        nar = await self._known.nars.find_stored(key)
        if nar is None:
            raise NotFound(f"{key.file_name} is not stored here")
        self._known.state.uses.nar(nar.key)
        return StoredNar(
            nar=nar,
            upstream=self._names.get(nar.upstream, ""),
            open_body=self._open,
            locate=partial(locate_stored, self._store),
            spoil=self._known.verifier.healing.spoiled,
        )

    async def stat_nar(self, key: NarKey) -> NarStat:
        """See `Uploads.stat_nar`."""
        opened = await self.nar(key)
        (await opened.body(0, 0)).close()
        return NarStat(opened.size, opened.outcome)

    async def _open(self, nar: NarRecord, start: int, stop: int | None) -> Body:
        """Open stored bytes. Raises NotFound if they are lost or damaged."""
        try:
            try:
                return await open_stored(self._store, self._threads, nar, start, stop)
            except Replaced as error:
                verified = await self._known.verifier.compare(nar)
                if verified is None:
                    raise NotFound(str(error)) from error
            return await open_stored(self._store, self._threads, verified, start, stop)
        except (NotFound, Corrupt) as error:
            await self._lose(nar, error)
            raise NotFound(f"{nar.key.file_name} is lost") from error

    async def _lose(self, nar: NarRecord, trouble: NotFound | Corrupt) -> None:
        """Correct the row of lost or damaged bytes, unless other bytes were stored meanwhile."""
        current = await self._catalog.nar(nar.key)
        if current is not None and current.stored_at == nar.stored_at:
            await self._known.verifier.healing.heal(nar, trouble)
