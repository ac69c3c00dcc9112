"""Narinfos: find one or fetch it, have it proved and recorded, serve it, and take it back.

One that may not be shown (see `find`) is fetched anew, from an upstream that still has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.narinfo.ask import Questions
from ncps.cache.narinfo.find import Lookup
from ncps.cache.narinfo.known import KnownNarInfo
from ncps.cache.narinfo.naming import named
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.searches import Searches, turn
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

PROOFS_S = 15.0
"""How long after the first question another upstream is asked whose bytes may have to be read."""


class NarInfos:
    """See the module.

    :param is_arriving: whether a NAR is being downloaded right now.
    :param prove: see `Proofs.prove`.
    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        *,
        vetting: NarInfoVerifier,
        prove: Callable[[Vetted], Awaitable[Vetted]],
        is_arriving: Callable[[NarKey], bool],
        is_absent_when_away: bool = True,
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.narinfos
        self._leases = world.leases
        self._upstreams = world.upstreams
        self._memory = state.memory
        self._negatives = state.negatives
        self._board = state.board
        self._uses = state.uses
        self._prove = prove
        self._lookup = Lookup(world, state, vetting, is_arriving)
        self._questions = Questions(world, state, vetting, is_absent_when_away=is_absent_when_away)
        self._records = Records(world, state, vetting, self._lookup, self._questions.paths)
        self._searches: Searches[KnownNarInfo] = Searches(world.clock, world.tasks)
        self.same_nar = self._questions.same_nar
        self.keep_beside = self._records.keep_beside

    async def get(self, digest: str) -> ServedNarInfo:
        """Return a narinfo to serve. NotFound, Unavailable, Corrupt."""
        item = await self._lookup.find(digest)
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
            may_repeat = _always if item.is_stored else partial(self._lookup.may_show, item)
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

    async def _fetch(self, digest: str) -> KnownNarInfo:
        """Fetch a narinfo. Bytes that have to be read for it are fetched without its lease:
        their download, if it fails, takes that lease to ask for the narinfo anew.
        """
        proven: Vetted | None = None
        failures: dict[str, NcpsError] = {}
        began = self._clock.seconds()
        while True:
            async with turn(self._leases, self._clock, f"download:narinfo:{digest}"):
                item = await self._lookup.find(digest)  # a peer may have been quicker
                if item is not None:
                    return item
                vetted = proven or await self._questions.first(digest, failures)
                if vetted.unproven is None:
                    return await self._records.record(vetted)
            vetted, _ = await named(self._catalog, vetted)
            if not self._questions.paths.of(vetted.nar.key):
                self._questions.paths.note(vetted.nar.key, digest)
            try:
                proven = await self._prove(vetted)
            except (NotFound, Unavailable, Corrupt) as error:
                self._questions.distrust(vetted.entry, error)
                failures[vetted.entry.upstream] = error
                if self._clock.seconds() - began > PROOFS_S:
                    raise

    def unrecorded(self, key: NarKey) -> NarRecord | None:
        """Return what a narinfo in memory says of a NAR the catalog does not know."""
        return self._memory.nar(key)

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
            if await self._lookup.find(digest) is not None:
                return
            try:
                vetted = await self._questions.beyond_doubt(digest)
            except (NotFound, Unavailable, Corrupt):
                return  # whoever asks next is told
            if vetted.unproven is None:  # else its bytes are read for whoever asks next
                await self._records.record(vetted)

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
            self._questions.doubts.add(digest, upstream)
        return set(origins)

    def changed(self, key: NarKey) -> None:
        """Take note that the state of a NAR has changed: look it up anew."""
        self._board.nar_changed(key)


def _always() -> bool:
    return True
