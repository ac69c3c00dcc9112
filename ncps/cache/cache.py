"""PullThrough: the cache core as the web layer sees it; see `answers.Cache`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ncps.cache.answers import (
    Absent,
    ArrivingNar,
    Cache,
    NarStat,
    Readiness,
    RealisationCache,
    ServedNar,
    ServedNarInfo,
)
from ncps.cache.core import Core
from ncps.cache.nar.at_hand import AtHand
from ncps.cache.nar.old_names import is_named
from ncps.cache.readiness import OK, Looks
from ncps.cache.world import World
from ncps.nix.keys import PublicKey
from ncps.nix.narurl import NarKey
from ncps.ports import ConfigStore


class PullThrough(Cache):
    """Composes narinfos and NARs; owns nothing.

    :ivar realisations: the verbs for realisations.
    """

    def __init__(
        self,
        world: World,
        core: Core,
        *,
        public_key: PublicKey,
        config: ConfigStore,
        trouble_with_leases: Callable[[], str] = lambda: "",
        troubles: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self._public_key = str(public_key)
        self._narinfos = core.narinfos
        self._nars = core.nars
        self._ahead = core.ahead
        self.realisations: RealisationCache = core.realisations
        self._at_hand = AtHand(world, core.narinfos, core.nars)
        self._looks = Looks(
            world.clock,
            world.tasks,
            {"database": world.inventory.stored_bytes, "storage": lambda: config.get("cache.key")},
        )
        self._upstreams = world.upstreams
        self._trouble_with_leases = trouble_with_leases
        self._troubles = troubles or {}

    @property
    def public_key(self) -> str:
        """See `Cache`."""
        return self._public_key

    def sign_as(self, key: PublicKey) -> None:
        """Show another public key from now on."""
        self._public_key = str(key)

    async def narinfo(self, digest: str, *, leads_on: bool = False) -> ServedNarInfo:
        """See `Cache`."""
        found = await self._at_hand.narinfo(digest)
        if leads_on:
            self._ahead.narinfo_asked(digest, found)
        return found

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """See `Cache`."""
        self._narinfos.watch(forgotten)

    def repeated(self, digests: Collection[str]) -> None:
        """See `Cache`."""
        self._narinfos.repeated(digests)
        self._ahead.asked_again(digests)

    def watch_nars(self, changed: Callable[[NarKey | None], object]) -> None:
        """See `Cache`."""
        self._nars.ready.watch(changed)

    def nars_repeated(self, keys: Collection[NarKey]) -> None:
        """See `Cache`."""
        self._nars.ready.repeated(keys)
        self._ahead.asked_again(keys)

    def nar_sent(self, busy_s: float, full_s: float) -> None:
        """See `Cache`."""
        self._nars.readers.note(busy_s, full_s)

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """See `Cache`."""
        found = await self._at_hand.narinfo(digest)
        if found.nar is None or not is_named(found.nar, file_name):
            raise Absent(f"no file has the name {file_name}", outcome=found.outcome)
        return found.nar.key

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """See `Cache`."""
        self._ahead.asked_again((key,))
        return await self._nars.open(key, is_part=is_part)

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """See `Cache`."""
        return await self._nars.arriving_nar(key)

    async def stat_nar(self, key: NarKey) -> NarStat:
        """See `Cache`."""
        return await self._nars.stat(key)

    async def readiness(self) -> Readiness:
        """See `Cache`. Only database and storage are needed, because hits use nothing else."""
        seen = await self._looks.all()
        parts = {part: what.state for part, what in seen.items()} | {"upstreams": OK}
        parts["leases"] = self._trouble_with_leases() or "ok"
        for part, look in self._troubles.items():
            if trouble := look():
                parts[part] = trouble
        parts["upstreams"] = self._upstreams.trouble or OK
        ages = {part: what.age_s for part, what in seen.items()}
        return Readiness(parts=parts, needed=frozenset(seen), ages=ages)
