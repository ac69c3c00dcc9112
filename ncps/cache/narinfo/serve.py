"""Narinfos: find one or fetch it; verify, rewrite, sign, record, serve.

A narinfo is shown only while its NAR can be had: its bytes are stored, are on their way, or its
upstream is not known to be away (P1). Otherwise it is fetched anew, from whoever still has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from functools import partial

from twisted.logger import Logger

from ncps.aio.clocks import utc_now, wall_of
from ncps.ask.choose import Candidate
from ncps.ask.policy import Away, verdict
from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.narinfo import sidecar
from ncps.cache.narinfo.doubts import Doubts
from ncps.cache.narinfo.known import KnownNarInfo, known
from ncps.cache.narinfo.naming import agreeing, is_right, named
from ncps.cache.narinfo.paths import Paths
from ncps.cache.narinfo.searches import Searches, turn
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import Vetted, Vetting
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.peering import trail
from ncps.ports import NarInfoEntry, NarRecord, Upstream

REFRESH_S = 3600.0
"""A narinfo whose NAR is not stored is asked for again after so long: upstreams collect garbage."""

EVICTED_REFRESH_S = 10.0
"""The same where the NAR was stored and is not any more: its narinfo may be from long ago, and a
client that is shown it counts on the NAR."""

PROOFS_S = 15.0
"""How long after the first question another upstream is asked whose bytes may have to be read."""


class NarInfos:
    """See the module.

    :param is_arriving: whether a NAR is being downloaded right now.
    :param prove: see `Proofs.prove`.
    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        state: CacheState,
        *,
        vetting: Vetting,
        prove: Callable[[Vetted], Awaitable[Vetted]],
        is_arriving: Callable[[NarKey], bool],
        is_absent_when_away: bool = True,
    ) -> None:
        self._clock = world.clock
        self._wall = wall_of(world.clock)
        self._catalog = world.catalog
        self._store = world.narinfos
        self._leases = world.leases
        self._upstreams = world.upstreams
        self._vetting = vetting
        self._memory = state.memory
        self._negatives = state.negatives
        self._board = state.board
        self._uses = state.uses
        self._is_arriving = is_arriving
        self._prove = prove
        self._disagreed = world.events.disagreed
        self._is_absent_when_away = is_absent_when_away
        self._doubts = Doubts(world.clock)
        self._paths = Paths()
        self._searches: Searches[KnownNarInfo] = Searches(world.clock, world.tasks)

    async def get(self, digest: str) -> ServedNarInfo:
        """Return a narinfo to serve. NotFound, Unavailable, Corrupt."""
        item = await self._find(digest)
        if item is not None:
            self._uses.narinfo(digest)
            return self._served(item, Outcome.HIT)
        if digest in self._negatives:
            raise Absent(f"no upstream has {digest}", outcome=Outcome.NEGATIVE)
        outcome = Outcome.COALESCED if digest in self._searches else Outcome.MISS
        item = await self._searches.join(digest, lambda: self._fetch(digest))
        self._uses.narinfo(digest)
        return self._served(item, outcome)

    def _served(self, item: KnownNarInfo, outcome: Outcome) -> ServedNarInfo:
        may_repeat: Callable[[], bool] | None = None
        if outcome is Outcome.HIT and self._memory.get(item.digest) is item:
            may_repeat = _always if item.is_stored else partial(self._may_show, item)
        return ServedNarInfo(
            text=item.text,
            tag=item.tag,
            outcome=outcome,
            upstream=self._upstreams.name_of(item.upstream),
            nar=item.nar,
            may_repeat=may_repeat,
        )

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """See `Cache`: whatever changes a narinfo or its NAR drops it from memory."""
        self._memory.forgotten = forgotten

    def repeated(self, digests: Collection[str]) -> None:
        """See `Cache`."""
        for digest in digests:
            self._uses.narinfo(digest)
            self._memory.get(digest)  # is younger by that

    async def _find(self, digest: str) -> KnownNarInfo | None:
        """Return what is known and may be shown now."""
        item = self._memory.get(digest)
        if item is None or not self._may_show(item):  # another replica may have stored its NAR
            item = await self._look_up(digest)
        return item if item is not None and self._may_show(item) else None

    async def _look_up(self, digest: str) -> KnownNarInfo | None:
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

    def _may_show(self, item: KnownNarInfo) -> bool:
        if item.is_stored:
            return True
        if trail.current().has_come_round:  # nobody would be asked for its NAR, either
            return False
        if self._is_arriving(item.nar.key):
            return True
        fresh_s = EVICTED_REFRESH_S if item.nar.was_stored else REFRESH_S
        is_fresh = abs(self._wall() - item.fetched_at) < fresh_s  # from the future: a clock was set
        return is_fresh and self._upstreams.is_reachable(item.upstream)

    async def _fetch(self, digest: str) -> KnownNarInfo:
        """Fetch a narinfo. Bytes that have to be read for it are fetched without its lease:
        their download, if it fails, takes that lease to ask for the narinfo anew.
        """
        proven: Vetted | None = None
        failures: dict[str, NcpsError] = {}
        began = self._clock.seconds()
        while True:
            async with turn(self._leases, self._clock, f"download:narinfo:{digest}"):
                item = await self._find(digest)  # a peer may have been quicker
                if item is not None:
                    return item
                vetted = proven or await self._first(digest, failures)
                if vetted.unproven is None:
                    return await self._record(vetted)
            vetted, _ = await named(self._catalog, vetted)
            if not self._paths.of(vetted.nar.key):
                self._paths.note(vetted.nar.key, digest)
            try:
                proven = await self._prove(vetted)
            except (NotFound, Unavailable, Corrupt) as error:
                self._failed_proof(vetted.entry, error)
                failures[vetted.entry.upstream] = error
                if self._clock.seconds() - began > PROOFS_S:
                    raise

    async def _first(self, digest: str, failures: dict[str, NcpsError]) -> Vetted:
        """Ask for a narinfo; those that are in doubt about the path only if no other has it.

        :param failures: of upstreams whose narinfo was found wrong, by base URL; not asked again.
        """
        what, ask = f"{digest}.narinfo", partial(self._ask, digest=digest)
        doubted = self._doubts.about(digest)
        try:
            if doubted:
                try:
                    found = await self._upstreams.first(what, ask, without={*doubted, *failures})
                except (NotFound, Corrupt):
                    pass
                else:
                    return found.value
            return (await self._upstreams.first(what, ask, without=failures)).value
        except NcpsError as error:
            left_out = ["others"] if isinstance(error, Away) else []
            final = verdict({**failures, "others": error}, what, left_out) if failures else error
            if isinstance(final, Away) and self._is_absent_when_away:
                raise Absent(str(final), outcome=Outcome.AWAY) from error
            if not isinstance(final, NotFound):
                raise final from error
            if not final.is_certain:
                raise Absent(str(final), outcome=Outcome.UNSURE) from error
            self._negatives.add(digest)
            raise Absent(str(final), outcome=Outcome.MISS) from error

    def _failed_proof(self, entry: NarInfoEntry, error: NcpsError) -> None:
        self._doubts.add(entry.digest, entry.upstream)
        self._upstreams.blame(entry.upstream, f"{entry.digest}.narinfo", error)

    async def _ask(self, upstream: Upstream, digest: str) -> Vetted:
        narinfo = await upstream.narinfo(digest)
        now = utc_now(self._clock)
        vetted = await self._vetting.judged(narinfo, digest, upstream.base_url, now)
        await self._check_known(narinfo, now)
        return vetted

    async def _check_known(self, narinfo: NarInfo, now: datetime) -> None:
        """Refuse a file that was found to have another NAR inside. Corrupt."""
        if narinfo.file_hash is None:
            return
        try:
            is_wrong = await self._catalog.is_wrong(narinfo.nar_hash, narinfo.file_hash, now)
        except Unavailable:
            return  # the bytes will tell
        if is_wrong:
            raise Corrupt(
                f"its narinfo names the file {narinfo.file_hash}, which was found to have another"
                " NAR inside"
            )

    async def _record(self, vetted: Vetted) -> KnownNarInfo:
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
            item = await self._look_up(entry.digest)
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

    def unrecorded(self, key: NarKey) -> NarRecord | None:
        """Return what a narinfo in memory says of a NAR the catalog does not know."""
        return self._memory.nar(key)

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

    async def published(self, nar: NarRecord) -> None:
        """Take note that a NAR's bytes are published and marked in the catalog."""
        self._board.nar_changed(nar.key)
        for entry in await self._catalog.narinfos_of(nar.key):
            await self.keep_beside(entry)

    async def lost(self, key: NarKey) -> None:
        """Take note that this NAR cannot be had as its narinfos say: they are fetched anew.

        What other upstreams say of them is asked for at once, so that a client that comes again
        with the same URL may find it right.
        """
        digests = await self._digests_of(key)
        for digest in digests:
            await self._catalog.forget_narinfo(digest)
        self._board.nar_changed(key)
        await self.relearn(digests)

    async def relearn(self, digests: Iterable[str]) -> None:
        """Record what those beyond doubt say of paths whose narinfos were forgotten."""
        for digest in digests:
            await self._relearn(digest)

    async def _relearn(self, digest: str) -> None:
        """Record what somebody beyond doubt says of a path, if anybody says something."""
        async with self._leases.hold(f"download:narinfo:{digest}"):
            if await self._find(digest) is not None:
                return
            try:
                found = await self._upstreams.first(
                    f"{digest}.narinfo",
                    partial(self._ask, digest=digest),
                    without=self._doubts.about(digest),
                )
            except (NotFound, Unavailable, Corrupt):
                return  # whoever asks next is told
            if found.value.unproven is None:  # else its bytes are read for whoever asks next
                await self._record(found.value)

    async def withdraw(self, key: NarKey) -> set[str]:
        """Take back every narinfo of a NAR that is not what they say; return them. Unavailable."""
        digests = await self._digests_of(key)
        for digest in digests:
            await self._catalog.forget_narinfo(digest)
            await self._store.delete(digest)
        self._board.nar_changed(key)
        return digests

    async def _digests_of(self, key: NarKey) -> set[str]:
        """Hashes of all narinfos of a NAR, recorded or not; none is held any more, all in doubt."""
        origins = self._memory.origins_of(key)
        self._memory.drop_nar(key)
        for entry in await self._catalog.narinfos_of(key):
            origins[entry.digest] = entry.upstream
        for digest, upstream in origins.items():
            self._doubts.add(digest, upstream)
        return set(origins)

    def changed(self, key: NarKey) -> None:
        """Take note that the state of a NAR has changed: look it up anew."""
        self._board.nar_changed(key)

    async def same_nar(self, candidate: Candidate, nar: NarRecord) -> NarRecord | None:
        """What an upstream says of the same NAR in the same compression; None: it has none.

        The file may be another. Unavailable, Corrupt: as the upstream answers.
        """
        entries = await self._catalog.narinfos_of(nar.key)
        digests = {entry.digest for entry in entries} or self._memory.digests_of(nar.key)
        digests = digests or self._paths.of(nar.key)
        if not digests:  # a newer narinfo names another URL
            digests = {entry.digest for entry in await self._catalog.narinfos_alike(nar.key)}
        if not digests:
            raise Unavailable("no path is known to ask for")
        for digest in digests:
            try:
                vetted = await candidate.ask(partial(self._ask, digest=digest), self._clock)
            except NotFound:
                continue
            other = vetted.nar
            if other.nar_hash == nar.nar_hash and other.compression == nar.compression:
                return other
        return None


def _always() -> bool:
    return True
