"""NARs: opens a stored one, or joins its download; heals lost bytes and fetches them again.

Replicas that share a catalog may each have other upstreams. A fact in a row is hearsay if it came
from an upstream that this replica does not have, and was never checked. The replica believes the
signed NarHash, and finds out the other facts anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve

from ncps.aio.recent import RecentSet
from ncps.aio.spool import Abandoned
from ncps.aio.spool_reader import Overtaken
from ncps.ask.choose import Upstreams
from ncps.cache.answers import Absent, NarStat, Outcome, ServedNar
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.download import Download, FollowedNar
from ncps.cache.nar.downloads import Downloads
from ncps.cache.nar.readers import ReaderSpeed
from ncps.cache.nar.ready import ReadyNars
from ncps.cache.nar.relay import AlreadyStored
from ncps.cache.nar.stored import find_object, is_hearsay, is_ours, open_stored
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.search import in_ring
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import CacheState
from ncps.cache.world import World
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.tracing.spans import current
from ncps.peering import trail
from ncps.ports import Body, Catalog, NarRecord, Removals, Replaced


class NarSearch:
    """Finds the record of a NAR, and its bytes if they are stored under another name."""

    def __init__(
        self,
        world: World,
        negatives: RecentSet,
        *,
        narinfos: NarInfos,
        adoption: Adoption,
        verifier: Verifier,
        downloads: Downloads,
    ) -> None:
        self._catalog = world.catalog
        self._removals = world.removals
        self._store = world.nars
        self._cluster = world.cluster
        self._upstreams = world.upstreams
        self._negatives = negatives
        self._narinfos = narinfos
        self._adoption = adoption
        self._verifier = verifier
        self._downloads = downloads

    async def find(self, key: NarKey) -> NarRecord | None:
        """Return the known record of a NAR, after adopting bytes without a row.

        Raises Absent if the NAR is blocked or known to be absent, Unavailable if the store or the
        catalog cannot tell.
        """
        if self._downloads.find(key) is not None:
            return None
        nar = await self._catalog.nar(key) or self._narinfos.unrecorded(key)
        if nar is not None and nar.is_stored and is_hearsay(nar, self._upstreams):
            nar = await self._verifier.verify(nar) or await self._catalog.nar(key)
        if nar is not None and nar.is_stored:
            return nar
        nar = await self._stored_file(key) if nar is None else self._view(key, nar)
        if nar is not None and nar.is_stored:
            return nar
        if nar is None and await is_blocked_name(self._removals, key):
            raise Absent(f"{key.file_name} is blocked here", outcome=Outcome.NEGATIVE)
        if nar is None and key in self._negatives:
            raise Absent(f"no upstream has {key.file_name}", outcome=Outcome.NEGATIVE)
        if await self._cluster.is_fetched_elsewhere(key):
            return nar  # it cannot be in the store, and asking the store may be slow
        located = await find_object(self._store, key, nar)
        if located is None:
            return nar
        adopted = await self._adoption.take_over(key, nar, located[0])
        if adopted is None:
            return nar
        await self._narinfos.published(adopted)
        return adopted

    def _view(self, key: NarKey, nar: NarRecord) -> NarRecord:
        """Return the record of an unstored NAR; if clients have part of another file, that one."""
        return self._downloads.chosen.of(key, nar) or _own_view(nar, self._upstreams)

    async def _stored_file(self, key: NarKey) -> NarRecord | None:
        """Return the record of bytes stored under another name whose hash is in this name."""
        try:
            nar = await self._catalog.stored_file(key.as_hash(), key.extension)
        except Malformed:
            return None
        return None if nar is None else await self._adoption.own(key) or nar


class Nars:
    """Opens NARs, from the store or as they arrive.

    :ivar ready: says which stored NARs may be sent again without a call of `open`.
    :ivar readers: whether the clients of large NARs are slower than the network.
    :ivar remake: makes a twin again after its bytes were removed; see `TwinRemaker`.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        *,
        narinfos: NarInfos,
        adoption: Adoption,
        verifier: Verifier,
        downloads: Downloads,
    ) -> None:
        self._catalog = world.catalog
        self._store = world.nars
        self._cluster = world.cluster
        self._workers = world.threads
        self._uses = state.uses
        self.readers = ReaderSpeed(world.clock)
        self.ready = ReadyNars(world, state, self.is_arriving)
        self._narinfos = narinfos
        self._adoption = adoption
        self._verifier = verifier
        self._downloads = downloads
        self._find = NarSearch(
            world,
            state.negatives,
            narinfos=narinfos,
            adoption=adoption,
            verifier=verifier,
            downloads=downloads,
        ).find
        self.remake: Callable[[NarRecord], Awaitable[None]] = _not_made

    @property
    def arriving(self) -> int:
        """Number of downloads that run."""
        return self._downloads.count

    def is_arriving(self, key: NarKey) -> bool:
        """Return whether a NAR is being downloaded."""
        return self._downloads.find(key) is not None

    async def open(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Return a NAR to serve. Raises as `Cache.nar`."""
        changes = self.ready.memory.changes
        nar = await self._find(key)
        _refuse_ring(key, nar)
        self._uses.nar(key if nar is None else nar.key)
        if nar is not None and nar.is_stored:
            spoiled = self._verifier.healing.spoiled
            return self.ready.served(nar, changes, self._open_stored, spoiled)
        if nar is not None and nar.made_from:
            await self.remake(nar)
            return await self.open(key, is_part=is_part)
        outcome = Outcome.COALESCED if self.is_arriving(key) else Outcome.MISS
        download = self._downloads.join(key, nar, may_replace=not is_part)
        try:
            await download.opened(is_part=is_part)
        except AlreadyStored:
            return await self.open(key, is_part=is_part)
        except NcpsError:
            if download.guess is None or not download.has_failed:
                raise
            return await self.open(key, is_part=is_part)  # not as a guess
        return FollowedNar(download=download, outcome=outcome, open_body=self._follow)

    async def arriving_nar(self, key: NarKey) -> FollowedNar:
        """Return a NAR that is being downloaded. Raises NotFound if it is not, else as `open`."""
        _refuse_ring(key, None)
        download = self._downloads.find(key)
        if download is None:
            raise NotFound(f"{key.file_name} is not arriving here")
        download.is_asked_for()
        current().link(download.span)
        await download.opened()
        return FollowedNar(download=download, outcome=Outcome.COALESCED, open_body=self._follow)

    async def fetch_ahead(self, nar: NarRecord, may_begin: Callable[[], bool]) -> Download | None:
        """Begin the download of a NAR that no client has asked for; None if it is not needed.

        Raises NotFound, Unavailable or Corrupt if the download cannot begin.

        :param may_begin: called immediately before the download would begin.
        """
        key = nar.key
        if self.is_arriving(key) or await self._cluster.is_fetched_elsewhere(key):
            return None
        found = await self._find(key)
        if found is None or found.is_stored or found.made_from:  # None: it was just removed
            return None
        is_due = not self.is_arriving(key) and may_begin()
        return self._downloads.start(key, found) if is_due else None

    async def read(self, nar: NarRecord) -> Body:
        """Open a whole NAR; if it must be fetched, check NarHash before storing it."""
        key, has_arrived = nar.key, False
        while True:
            there = await self._catalog.nar(key)
            if there is None or not there.is_stored:
                there = await self._adoption.adopt(key, there or nar) or there
            if there is not None and there.is_stored:
                return await self._open_stored(there, 0, None)
            if has_arrived:  # the disk is full: read the bytes while they arrive
                return await self._downloads.start(
                    key, nar, exclusive=False, is_thorough=True
                ).reader()
            joined = self._downloads.find(key)
            download = joined or self._downloads.start(key, there or nar, is_thorough=True)
            download.is_asked_for()
            has_arrived = True  # although its spool may be gone by now
            try:
                await download.arrived.wait()
                return await download.reader()
            except (AlreadyStored, Abandoned, Overtaken):
                pass
            except NcpsError:
                if joined is None or joined.guess is None or not joined.has_failed:
                    raise
                has_arrived = False  # fetch it again, not as a guess

    async def stat(self, key: NarKey) -> NarStat:
        """Return the size if it is sure, and the outcome. Raises the errors of `open`.

        A size that an upstream says is not sure, because here no bytes follow to check it.
        """
        nar = await self._find(key)
        if nar is not None and nar.is_stored:
            body = await self._open_stored(nar, 0, 0)  # no byte: this answer has no body
            body.close()
            return NarStat(nar.file_size, Outcome.HIT)
        _refuse_ring(key, nar)
        if nar is not None and nar.made_from:
            await self.remake(nar)  # only this shows whether a GET would succeed
            return NarStat((await self.stat(key)).size, Outcome.MISS)
        if self.is_arriving(key):
            download = self._downloads.join(key, nar, may_replace=True)
            try:
                await download.opened()
            except NcpsError as error:
                if download.guess is None and not isinstance(error, AlreadyStored):
                    raise
                return await self.stat(key)  # not as a guess
            return NarStat(download.sure_size, Outcome.COALESCED)
        return NarStat(await _size_elsewhere(self._downloads, key, nar), Outcome.MISS)

    async def is_here(self, key: NarKey) -> bool:
        """Adopt bytes without a row; return whether the NAR is stored. Raises as `stat`."""
        return await self.find_stored(key) is not None

    async def find_stored(self, key: NarKey) -> NarRecord | None:
        """Return the row of a NAR that is stored, else None; raises as `is_here`."""
        nar = await self._find(key)
        return nar if nar is not None and nar.is_stored else None

    # Stored bytes

    async def _open_stored(self, nar: NarRecord, start: int, stop: int | None) -> Body:
        """Open stored bytes; if they are lost or damaged, heal them and fetch them again."""
        try:
            try:
                return await open_stored(self._store, self._workers, nar, start, stop)
            except Replaced:
                verified = await self._verifier.compare(nar)
            if verified is not None:
                return await open_stored(self._store, self._workers, verified, start, stop)
            trouble: NcpsError = NotFound("set aside")
        except (NotFound, Corrupt) as error:
            trouble = error
        if not self.is_arriving(nar.key):  # if it arrives, another client has healed it
            current = await self._catalog.nar(nar.key)
            if current is not None and current.stored_at not in {None, nar.stored_at}:
                return await self._open_stored(current, start, stop)  # it was healed since then
            is_noted = current is not None and not current.is_stored
            if not (is_noted and isinstance(trouble, NotFound)):  # removed a moment ago
                await self._verifier.healing.heal(nar, trouble)
        if nar.made_from:
            nar = await _remade(self._catalog, nar.without_bytes(), self.remake)
            return await open_stored(self._store, self._workers, nar, start, stop)
        download = self._downloads.join(nar.key, nar.without_bytes())
        return await self._follow(nar.key, download, start, stop)

    # Arriving bytes

    async def _follow(self, key: NarKey, download: Download, start: int, stop: int | None) -> Body:
        """Follow a download; if its spool has dropped the bytes, open the store or fetch anew."""
        try:
            return await download.reader(start, stop)
        except (Overtaken, AlreadyStored) as error:
            nar = await self._catalog.nar(key) or self._narinfos.unrecorded(key)
            if nar is not None and nar.is_stored:
                return await self._open_stored(nar, start, stop)
            if isinstance(error, AlreadyStored):
                raise
        return await self._downloads.start(key, nar, exclusive=False).reader(start, stop)


async def _size_elsewhere(downloads: Downloads, key: NarKey, nar: NarRecord | None) -> int | None:
    """Ask the upstreams for a NAR; return its size if that is sure. Raises as `Sources.stat`."""
    sources = downloads.sources(key, nar)
    if not downloads.is_partly_sent(key):
        sources.allow_replacing()
    await sources.stat()
    # NarSize is the only size in a narinfo that is signed.
    is_sure = nar is not None and nar.compression == "none"
    return nar.file_size if nar is not None and is_sure else None


async def _remade(
    catalog: Catalog, twin: NarRecord, remake: Callable[[NarRecord], Awaitable[None]]
) -> NarRecord:
    """Make a twin again; return its row. Raises Unavailable if it was removed again already."""
    await remake(twin)
    made = await catalog.nar(twin.key)
    if made is None or not made.is_stored:
        raise Unavailable(f"{twin.key.file_name} was removed a moment ago")
    return made


async def _not_made(nar: NarRecord) -> None:
    raise NotFound(f"{nar.key.file_name} is not stored, and nothing here makes it")


async def is_blocked_name(removals: Removals, key: NarKey) -> bool:
    """Return whether a name belongs to a NAR or file that is blocked here."""
    try:
        return await removals.is_blocked_file(key.as_hash())
    except Malformed:
        return False


def _refuse_ring(key: NarKey, nar: NarRecord | None) -> None:
    """Raise Absent (RING) if a NAR is not stored, and its question came from this cache itself."""
    if trail.current().has_come_round and (nar is None or not nar.is_stored):
        raise in_ring(key.file_name)


def _own_view(nar: NarRecord, upstreams: Upstreams) -> NarRecord:
    """Return the record of a NAR without the unsigned facts of an upstream that is not ours."""
    if nar.was_stored or is_ours(nar, upstreams):
        return nar
    return evolve(nar, file_size=None, file_hash=None, upstream="", origin_url="")
