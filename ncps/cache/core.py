"""Core: the parts of the cache, made from a World."""

from __future__ import annotations

from attrs import frozen

from ncps.cache.nar.admission import Admission
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.downloads import DownloadRules, Downloads
from ncps.cache.nar.heal import Healing
from ncps.cache.nar.publish import Publication
from ncps.cache.nar.quarantine import Quarantine, QuarantineBounds
from ncps.cache.nar.serve import Nars
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarRecord


@frozen(kw_only=True)
class Rules:
    """What an operator decides about the core.

    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    quarantine: QuarantineBounds
    downloads: DownloadRules
    is_absent_when_away: bool = True


class Core:
    """Narinfos and NARs, and what looks after them; see the attributes.

    :param admission: says which downloads may begin.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        *,
        vetting: NarInfoVerifier,
        admission: Admission,
        rules: Rules,
    ) -> None:
        self.state = state
        proofs = Proofs(
            clock=world.clock,
            workers=world.threads,
            vetting=vetting,
            fetch=self._read,
        )
        self.narinfos = NarInfos(
            world,
            state,
            vetting=vetting,
            prove=proofs.prove,
            is_arriving=self._is_arriving,
            is_absent_when_away=rules.is_absent_when_away,
        )
        self.quarantine = Quarantine(world, rules.quarantine)
        self.adoption = Adoption(world, self.quarantine)
        self.healing = Healing(world, self.quarantine, self.narinfos, self._is_arriving)
        self.verifier = Verifier(world, self.quarantine, self.narinfos, self.healing)
        publication = Publication(world, self.narinfos, self.adoption, admission)
        self.nars = Nars(
            world,
            state,
            narinfos=self.narinfos,
            adoption=self.adoption,
            verifier=self.verifier,
            downloads=Downloads(
                world, state.negatives, self.narinfos, publication, admission, rules.downloads
            ),
        )

    def _is_arriving(self, key: NarKey) -> bool:
        return self.nars.is_arriving(key)

    async def _read(self, nar: NarRecord) -> Body:
        return await self.nars.read(nar)
