"""Core: the parts of the cache, made from a World."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ncps.aio.recent import RecentSet
from ncps.cache.ahead.prefetch import Prefetch
from ncps.cache.ahead.rules import NOTHING_AHEAD, AheadRules
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.downloads import DownloadRules, Downloads
from ncps.cache.nar.heal import Healing
from ncps.cache.nar.quarantine import Quarantine, QuarantineBounds
from ncps.cache.nar.serve import Nars
from ncps.cache.nar.stored import Publication
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import (
    CacheState,
    Doubts,
    Invalidation,
    LastUse,
    NarInfoMemory,
    Paths,
)
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.realisation.serve import PulledRealisations
from ncps.cache.realisation.verify import RealisationVerifier
from ncps.cache.world import World
from ncps.nix.keys import PublicKey
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord


@frozen(kw_only=True)
class Rules:
    """The decisions of an operator about the core.

    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    :param upload_keys: keys that vouch for uploads, beside those that vouch for upstreams.
    :param uploads_need_key: whether an upload that no key vouches for is refused.
    """

    quarantine: QuarantineBounds
    downloads: DownloadRules
    ahead: AheadRules = NOTHING_AHEAD
    is_absent_when_away: bool = True
    upload_keys: Sequence[PublicKey] = ()
    uploads_need_key: bool = False

    def realisation_verifier(self, keys: NarInfoVerifier) -> RealisationVerifier:
        """Make the verifier of realisations."""
        return RealisationVerifier(keys, self.upload_keys, requires_key=self.uploads_need_key)


def state_of(
    world: World, *, memory_size: int, negative_ttl_s: float, negative_entries: int
) -> CacheState:
    """Make the state that the core holds in memory; act on notices of the other processes.

    :param memory_size: bytes of narinfos.
    """
    memory = NarInfoMemory(memory_size)
    negatives = RecentSet(world.clock, ttl_s=negative_ttl_s, max_entries=negative_entries)
    board = Invalidation(world.notices, world.tasks, memory, negatives)
    board.listen()
    return CacheState(
        memory=memory,
        negatives=negatives,
        uses=LastUse(world.clock, world.catalog),
        board=board,
        doubts=Doubts(world.clock),
        paths=Paths(),
    )


class Core:
    """The parts that serve, verify, fetch and heal narinfos and NARs.

    :ivar realisation_verifier: a reload gives it other keys for uploads.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        *,
        vetting: NarInfoVerifier,
        rules: Rules,
    ) -> None:
        self.state = state
        self.vetting = vetting
        proofs = Proofs(
            clock=world.clock,
            workers=world.threads,
            vetting=vetting,
            fetch=self._read,
        )
        self.records = Records(world, state, vetting, self._is_arriving)
        self.narinfos = NarInfos(
            world,
            state,
            self.records,
            vetting=vetting,
            prove=proofs.prove,
            is_absent_when_away=rules.is_absent_when_away,
        )
        self.realisation_verifier = rules.realisation_verifier(vetting)
        self.realisations = PulledRealisations(
            world, state, self.realisation_verifier, is_absent_when_away=rules.is_absent_when_away
        )
        self.quarantine = Quarantine(world, rules.quarantine)
        symbols = self.records.symbols
        self.adoption = Adoption(world, self.quarantine, symbols)
        self.healing = Healing(world, self.quarantine, self.narinfos, self._is_arriving)
        self.verifier = Verifier(world, self.quarantine, self.narinfos, self.healing, symbols)
        self.publication = Publication(world, state.board, self.records, self.adoption.adopt)
        downloads = Downloads(
            world, state.negatives, self.narinfos, self.publication, rules.downloads
        )
        self.running = downloads.running
        self.nars = Nars(
            world,
            state,
            narinfos=self.narinfos,
            adoption=self.adoption,
            verifier=self.verifier,
            downloads=downloads,
        )
        self.ahead = Prefetch(world, self.narinfos, self.nars, rules.ahead)

    def _is_arriving(self, key: NarKey) -> bool:
        return self.nars.is_arriving(key)

    async def _read(self, nar: NarRecord) -> Body:
        return await self.nars.read(nar)
