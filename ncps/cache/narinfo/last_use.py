"""LastUse: when narinfos and NARs were used, held in memory and written in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import wall_of
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog

K = TypeVar("K")

MAX_WAITING: Final = 100_000

PIECE: Final = 1000
"""Times of use that are written at once."""


class LastUse:
    """Narinfos and NARs used since the last flush. Above `MAX_WAITING`, new ones are not noted."""

    def __init__(self, clock: IReactorTime, catalog: Catalog) -> None:
        self._now = wall_of(clock)
        self._catalog = catalog
        self._narinfos: dict[str, float] = {}
        self._nars: dict[NarKey, float] = {}

    def narinfo(self, digest: str) -> None:
        """Note that a narinfo was served."""
        if len(self._narinfos) < MAX_WAITING:
            self._narinfos[digest] = self._now()

    def narinfos(self, digests: Iterable[str]) -> None:
        """Note that narinfos were served."""
        room = max(0, MAX_WAITING - len(self._narinfos))
        self._narinfos.update(dict.fromkeys(islice(digests, room), self._now()))

    def nar(self, key: NarKey) -> None:
        """Note that a NAR was served."""
        if len(self._nars) < MAX_WAITING:
            self._nars[key] = self._now()

    async def flush(self) -> None:
        """Write the noted times; on failure they are lost, which only ages the entries."""
        if not self._narinfos and not self._nars:
            return
        narinfos, self._narinfos = self._narinfos, {}
        nars, self._nars = self._nars, {}
        # In pieces: to make 100,000 times takes longer than a turn of the reactor should.
        for times in _pieces(narinfos):
            await self._catalog.touch(times, {})
        for nar_times in _pieces(nars):
            await self._catalog.touch({}, nar_times)


def _pieces(uses: dict[K, float]) -> Iterator[dict[K, datetime]]:
    left = iter(uses.items())
    while piece := {key: datetime.fromtimestamp(at, UTC) for key, at in islice(left, PIECE)}:
        yield piece
