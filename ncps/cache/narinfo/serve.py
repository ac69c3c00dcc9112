"""Narinfos: serves recorded and fetched ones, and withdraws wrong ones.

A narinfo that may not be shown (see `record`) is fetched anew, from an upstream that still has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.search import NarInfoSearch, Questions
from ncps.cache.narinfo.state import CacheState, KnownNarInfo
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord


class NarInfos:
    """Serves narinfos; fetches those that are not known.

    :param prove: see `Proofs.prove`.
    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        records: Records,
        *,
        vetting: NarInfoVerifier,
        prove: Callable[[Vetted], Awaitable[Vetted]],
        is_absent_when_away: bool,
    ) -> None:
        self._catalog = world.catalog
        self._removals = world.removals
        self._store = world.narinfos
        self._memory = state.memory
        self._negatives = state.negatives
        self._board = state.board
        self._uses = state.uses
        self._doubts = state.doubts
        self._questions = Questions(world, state, vetting, is_absent_when_away=is_absent_when_away)
        self._records = records
        self._search = NarInfoSearch(world, state, self._questions, records, prove)
        self.relearn = self._search.relearn
        self.same_nar = self._questions.same_nar
        self.published = records.published

    async def get(self, digest: str) -> ServedNarInfo:
        """Return a narinfo to serve.

        Raises NotFound, Unavailable or Corrupt if no upstream has a good one.
        """
        item = await self._records.find(digest, says_why=True)
        if item is not None:
            self._uses.narinfo(digest)
            return self._served(item, Outcome.HIT)
        if digest in self._negatives:
            raise Absent(f"no upstream has {digest}", outcome=Outcome.NEGATIVE)
        if await self._removals.is_blocked(digest):
            raise Absent(f"{digest} is blocked here", outcome=Outcome.NEGATIVE)
        item, outcome = await self._search.find(digest)
        self._uses.narinfo(digest)
        return self._served(item, outcome)

    async def fetch_ahead(self, digest: str) -> tuple[KnownNarInfo, Outcome] | None:
        """Return a narinfo that no client has asked for; None if it is known to be absent.

        Raises as `get`.
        """
        item = await self._records.find(digest)
        if item is not None:
            return item, Outcome.HIT
        if digest in self._negatives or await self._removals.is_blocked(digest):
            return None
        return await self._search.find(digest)

    def _served(self, item: KnownNarInfo, outcome: Outcome) -> ServedNarInfo:
        may_repeat: Callable[[], bool] | None = None
        if outcome is Outcome.HIT and self._memory.get(item.digest) is item:
            may_repeat = _always if item.nar.is_stored else partial(self._records.may_show, item)
        return ServedNarInfo(
            text=item.text,
            tag=item.tag,
            outcome=outcome,
            upstream=item.upstream_name,
            nar=item.nar,
            may_repeat=may_repeat,
        )

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """See `Cache`. Each change of a narinfo or its NAR drops the narinfo from memory."""
        self._memory.forgotten = forgotten

    def repeated(self, digests: Collection[str]) -> None:
        """See `Cache`."""
        self._uses.narinfos(digests)
        self._memory.renew(digests)

    def unrecorded(self, key: NarKey) -> NarRecord | None:
        """Return the record in memory of a NAR that the catalog does not know; None if none."""
        return self._memory.nar(key)

    async def lost(self, key: NarKey) -> None:
        """Note that no upstream has this NAR as its narinfos say; fetch these narinfos anew.

        Asks other upstreams for them immediately, so that a client may succeed when it comes again
        with the same URL.
        """
        digests = await self._digests_of(key)
        for digest in digests:
            await self._catalog.forget_narinfo(digest)
        self._board.nar_changed(key)
        await self.relearn(digests)

    async def withdraw(self, key: NarKey) -> set[str]:
        """Withdraw every narinfo of a NAR that was found wrong; return their hash parts.

        Raises Unavailable if catalog or store cannot be asked.
        """
        digests = await self._digests_of(key)
        for digest in digests:
            await self._catalog.forget_narinfo(digest)
            await self._store.delete(digest)
        self._board.nar_changed(key)
        return digests

    async def _digests_of(self, key: NarKey) -> set[str]:
        """Drop all narinfos of a NAR, doubt their upstreams, and return the hash parts."""
        origins = self._memory.origins_of(key)
        self._memory.drop_nar(key)
        for entry in await self._catalog.narinfos_of(key):
            origins[entry.digest] = entry.upstream
        for digest, upstream in origins.items():
            self._doubts.add(digest, upstream)
        return set(origins)

    def changed(self, key: NarKey) -> None:
        """Note that the state of a NAR has changed; drop its narinfos from memory."""
        self._board.nar_changed(key)


def _always() -> bool:
    return True
