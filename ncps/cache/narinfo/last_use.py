"""Last use: times that are collected in memory and written in batches."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import wall_of
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog

FLUSH_S = 60.0
MAX_WAITING = 100_000


class LastUse:
    """What was used since the last flush; bounded, over the bound new ones are not noted."""

    def __init__(self, clock: IReactorTime, catalog: Catalog) -> None:
        self._now = wall_of(clock)
        self._catalog = catalog
        self._narinfos: dict[str, float] = {}
        self._nars: dict[NarKey, float] = {}

    def narinfo(self, digest: str) -> None:
        """Note that a narinfo was served."""
        if len(self._narinfos) < MAX_WAITING:
            self._narinfos[digest] = self._now()

    def nar(self, key: NarKey) -> None:
        """Note that a NAR was served."""
        if len(self._nars) < MAX_WAITING:
            self._nars[key] = self._now()

    async def flush(self) -> None:
        """Write down what was noted; on failure it is lost, which only ages the entries."""
        if not self._narinfos and not self._nars:
            return
        narinfos, self._narinfos = self._narinfos, {}
        nars, self._nars = self._nars, {}
        await self._catalog.touch(
            {digest: datetime.fromtimestamp(at, UTC) for digest, at in narinfos.items()},
            {key: datetime.fromtimestamp(at, UTC) for key, at in nars.items()},
        )
