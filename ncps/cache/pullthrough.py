"""PullThrough: the cache core as the web floor sees it; see `verbs.Cache`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ncps.cache.choose import Upstreams
from ncps.cache.narinfos import NarInfos
from ncps.cache.nars import Nars
from ncps.cache.verbs import ArrivingNar, Cache, Outcome, Readiness, ServedNar, ServedNarInfo
from ncps.errors import NcpsError
from ncps.nix.keys import PublicKey
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog, ConfigStore


class PullThrough(Cache):
    """Composes narinfos and NARs; owns nothing."""

    def __init__(
        self,
        *,
        public_key: PublicKey,
        narinfos: NarInfos,
        nars: Nars,
        catalog: Catalog,
        config: ConfigStore,
        upstreams: Upstreams,
        trouble_with_leases: Callable[[], str] = lambda: "",
        troubles: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self._public_key = str(public_key)
        self._narinfos = narinfos
        self._nars = nars
        self._catalog = catalog
        self._config = config
        self._upstreams = upstreams
        self._trouble_with_leases = trouble_with_leases
        self._troubles = troubles or {}

    @property
    def public_key(self) -> str:
        """See `Cache`."""
        return self._public_key

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """See `Cache`."""
        return await self._narinfos.get(digest)

    def watch(self, forgotten: Callable[[str], object]) -> None:
        """See `Cache`."""
        self._narinfos.watch(forgotten)

    def repeated(self, digests: Collection[str]) -> None:
        """See `Cache`."""
        self._narinfos.repeated(digests)

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """See `Cache`."""
        return await self._nars.open(key, is_part=is_part)

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """See `Cache`."""
        return await self._nars.arriving_nar(key)

    async def stat_nar(self, key: NarKey) -> tuple[int | None, Outcome]:
        """See `Cache`."""
        return await self._nars.stat(key)

    async def readiness(self) -> Readiness:
        """See `Cache`; hits need database and storage alone, so nothing else makes it unready."""
        parts = {"database": "ok", "storage": "ok", "upstreams": "ok"}
        parts["leases"] = self._trouble_with_leases() or "ok"
        for part, look in self._troubles.items():
            if trouble := look():
                parts[part] = trouble
        try:
            await self._catalog.totals()
        except NcpsError as error:
            parts["database"] = str(error)
        try:
            await self._config.get("cache.key")
        except NcpsError as error:
            parts["storage"] = str(error)
        parts["upstreams"] = self._upstreams.trouble or "ok"
        return Readiness(parts=parts, needed=frozenset({"database", "storage"}))
