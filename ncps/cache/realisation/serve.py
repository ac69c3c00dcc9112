"""Serve: gives clients realisations that are kept here or that an upstream has.

All requests for one realisation share one search, like requests for a narinfo.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from ncps.aio.clocks import utc_now
from ncps.ask.policy import AllAway
from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import (
    Absent,
    Outcome,
    RealisationCache,
    RealisationUpload,
    ServedRealisation,
)
from ncps.cache.narinfo.search import Searches, turn
from ncps.cache.narinfo.state import CacheState
from ncps.cache.realisation.record import RealisationRecords
from ncps.cache.realisation.verify import RealisationVerifier
from ncps.cache.world import World
from ncps.errors import NotFound, Refused
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.nix.storepath import StorePath
from ncps.ports import RealisationEntry, Upstream
from ncps.ranges import entity_tag

INLINE_SIZE: Final = 64 * 1024
"""Bytes of a realisation that is parsed in the reactor's thread, at most."""


class PulledRealisations(RealisationCache):
    """The verbs for realisations; see `RealisationCache`.

    :param is_absent_when_away: whether a realisation that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        verifier: RealisationVerifier,
        *,
        is_absent_when_away: bool,
    ) -> None:
        self._clock = world.clock
        self._threads = world.threads
        self._upstreams = world.upstreams
        self._leases = world.leases
        self._negatives = state.negatives
        self._verifier = verifier
        self._is_absent_when_away = is_absent_when_away
        self.records = RealisationRecords(world, state, verifier)
        self._searches: Searches[RealisationEntry] = Searches(
            world.clock, world.tasks, "realisation"
        )

    async def get(self, key: RealisationKey, *, is_local: bool = False) -> ServedRealisation:
        """See `RealisationCache.get`."""
        entry, outcome = await self.records.find(key), Outcome.HIT
        if entry is None:
            if is_local:
                raise Absent(f"{key.path} is not kept here", outcome=Outcome.MISS)
            if key in self._negatives:
                raise Absent(f"no upstream had {key.path} lately", outcome=Outcome.NEGATIVE)
            is_running = key.path in self._searches
            outcome = Outcome.COALESCED if is_running else Outcome.MISS
            entry = await self._searches.join(key.path, partial(self._search, key))
        text = entry.realisation.render()
        name = self._upstreams.names.get(entry.upstream, "")
        path = entry.realisation.out_path.base
        return ServedRealisation(text, entity_tag(text), outcome, name, path)

    async def accept(
        self, key: RealisationKey, text: bytes, principal: Principal
    ) -> RealisationUpload:
        """See `RealisationCache.accept`."""
        stated = await self._parsed(text, key)
        path = stated.out_path
        if not principal.may(Scope.WRITE, path.base):
            raise Refused(f"this client may not write {path.base}")
        if principal.paths is not None and not key.may_be(path):
            raise Refused(f"{path.base} has another name than an output of {key.derivation}")
        entry = self._verifier.accept(stated, utc_now(self._clock))
        kept, before = await self.records.take(entry)
        if before is None:
            return RealisationUpload.CREATED
        if not kept.realisation.says_as(entry.realisation):
            return RealisationUpload.LEFT
        is_same = before.realisation.says_as(entry.realisation)
        return RealisationUpload.SAME if is_same else RealisationUpload.REPLACED

    async def forget(self, key: RealisationKey, principal: Principal) -> bool:
        """See `RealisationCache.forget`."""

        def may(path: StorePath | None) -> bool:
            if path is None:
                return principal.may(Scope.DELETE) and principal.paths is None
            return principal.may(Scope.DELETE, path.base)

        return await self.records.forget(key, may)

    async def restore(self, realisation: Realisation) -> None:
        """Record a realisation from its copy. Raises Unusable if no known key has signed it."""
        await self.records.restore(self._verifier.restore(realisation, utc_now(self._clock)))

    async def _parsed(self, text: bytes, key: RealisationKey) -> Realisation:
        if len(text) > INLINE_SIZE:
            return await self._threads.run(Realisation.parse, text, key)
        return Realisation.parse(text, key)

    async def _search(self, key: RealisationKey) -> RealisationEntry:
        async with turn(self._leases, self._clock, f"download:realisation:{key.digest}"):
            entry = await self.records.find(key)  # a peer may have been faster
            if entry is not None:
                return entry
            return await self.records.record(await self._ask_all(key))

    async def _ask_all(self, key: RealisationKey) -> RealisationEntry:
        try:
            return (await self._upstreams.first(key.path, partial(self._ask, key=key))).value
        except AllAway as error:
            if self._is_absent_when_away:
                raise Absent(str(error), outcome=Outcome.AWAY) from error
            raise
        except NotFound as error:
            if not error.is_certain:
                raise Absent(str(error), outcome=Outcome.UNSURE) from error
            self._negatives.add(key)
            raise Absent(str(error), outcome=Outcome.MISS) from error

    async def _ask(self, upstream: Upstream, key: RealisationKey) -> RealisationEntry:
        found = await upstream.realisation(key)
        return self._verifier.vet(found, upstream=upstream.base_url, now=utc_now(self._clock))
