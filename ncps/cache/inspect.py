"""Inspection: stored NARs whose NarHash was never checked are checked in the background.

What is cheap is checked while it arrives; xz and bzip2 are not. The rate is bounded, so that the
check never takes much of a core. A NAR that fails is set aside, and nothing of it is shown again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ncps.cache.narinfos import NarInfos
from ncps.cache.quarantine import Quarantine
from ncps.cache.served import stored_key
from ncps.clocks import utc_now
from ncps.codec import CODECS
from ncps.errors import Corrupt, NotFound
from ncps.nix.narcheck import NarDigest
from ncps.ports import Catalog, NarRecord, NarStore
from ncps.workers import Threads

BATCH = 10


class Inspection:
    """See the module.

    :param bytes_per_second: of stored files, on the average; 0 inspects nothing.
    :param inspected: told of each result: "right", "wrong" or "missing".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        catalog: Catalog,
        store: NarStore,
        quarantine: Quarantine,
        narinfos: NarInfos,
        workers: Threads,
        bytes_per_second: int,
        inspected: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._catalog = catalog
        self._store = store
        self._quarantine = quarantine
        self._narinfos = narinfos
        self._workers = workers
        self._rate = bytes_per_second
        self._inspected = inspected

    async def run(self) -> None:
        """Go through what is unverified now. Unavailable: try again later."""
        while self._rate > 0:
            batch = await self._catalog.unverified(BATCH, CODECS)
            if not batch:
                return
            for nar in batch:
                await self.inspect(nar)

    async def inspect(self, nar: NarRecord) -> None:
        """Check one stored NAR and note the result. Unavailable."""
        name = nar.key.file_name
        try:
            await self._check(nar)
        except NotFound:
            self._inspected("missing")
            self._log.error("stored NAR {key} is missing", key=name)
            await self._catalog.mark_missing(nar.key)
            self._narinfos.changed(nar.key)
        except Corrupt as error:
            self._inspected("wrong")
            self._log.error(
                "stored NAR {key} is not what its narinfo says and is set aside: {reason}",
                key=name,
                reason=str(error),
            )
            await self._narinfos.withdraw(nar.key)
            await self._catalog.forget_nar(nar.key)
            await self._quarantine.put(stored_key(nar))
        else:
            self._inspected("right")
            await self._catalog.mark_verified(nar.key, utc_now(self._clock))

    async def _check(self, nar: NarRecord) -> None:
        digest = NarDigest(nar.encoding or nar.compression, max_size=nar.nar_size)
        body = await self._store.open(stored_key(nar), size=nar.stored_size)
        try:
            async for chunk in body:
                began = self._clock.seconds()
                await self._workers.run(digest.feed, chunk)
                due = len(chunk) / self._rate - (self._clock.seconds() - began)
                await deferLater(self._clock, max(0.0, due))
        finally:
            body.close()
        nar_hash, nar_size = await self._workers.run(digest.finish)
        if nar_hash != nar.nar_hash:
            raise Corrupt(f"NAR hash {nar_hash} instead of {nar.nar_hash}")
        if nar.nar_size is not None and nar_size != nar.nar_size:
            raise Corrupt(f"NAR of {nar_size} bytes instead of {nar.nar_size}")
