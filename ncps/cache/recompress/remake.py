"""Remaking: makes a lost twin again for a client that asks for it.

No upstream has the file of a twin. The bytes behind a URL never change (P5), so ncps makes the twin
from its original, at its former level, and keeps it only if it has its former hash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.recent import RecentSet
from ncps.aio.single_flight import SingleFlight
from ncps.cache.cluster import lease_of
from ncps.cache.narinfo.record import Records
from ncps.cache.recompress.convert import Converter
from ncps.cache.world import World
from ncps.errors import Conflict, Corrupt, NotFound, Unavailable
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.ports import Lease, NarRecord

AT_ONCE: Final = 2
"""Twins that are made again at the same time, at most."""
WAITING: Final = 50
"""Further twins that wait; a client that asks for one more gets 503."""
PATIENCE_S: Final = 120.0
"""Seconds for which a twin waits, at most."""
RETRY_S: Final = 5.0
"""Seconds after which a client should ask again for a twin that another process makes."""
HOPELESS_S: Final = 3600.0
"""Seconds for which ncps does not try again after a twin got another hash."""
HOPELESS: Final = 10_000
"""Number of such twins that a process remembers, at most."""


class TwinRemaker:
    """Makes lost twins again, each once for all clients that ask for it at the same time.

    :param verify: see `Verifier.verify`.
    """

    def __init__(
        self,
        world: World,
        converter: Converter,
        records: Records,
        verify: Callable[[NarRecord], Awaitable[NarRecord | None]],
    ) -> None:
        self._catalog = world.catalog
        self._leases = world.leases
        self._count = world.metrics.recompressions
        self._converter = converter
        self._records = records
        self._verify = verify
        self._hopeless = RecentSet(world.clock, ttl_s=HOPELESS_S, max_entries=HOPELESS)
        self._flights: SingleFlight[NarKey, None] = SingleFlight(world.tasks, "twin")
        self._places = Bulkhead(
            world.clock,
            "NARs that are compressed again",
            size=AT_ONCE,
            queue=WAITING,
            patience_s=PATIENCE_S,
        )

    async def remake(self, twin: NarRecord) -> None:
        """Make and store a twin whose row says that it is not stored.

        Raises NotFound if the new file has another hash than the twin had, or if the twin's row is
        gone, Corrupt if the original is damaged at the upstream, too, Unavailable or StorageFull if
        the twin cannot be made now.
        """
        if twin.key in self._hopeless:
            raise _otherwise(twin)
        await self._flights.join(twin.key, partial(self._remake, twin))

    async def _remake(self, twin: NarRecord) -> None:
        async with self._places:
            lease = await self._leases.try_hold(lease_of(twin.key))
            if lease is None:
                raise Unavailable(
                    f"another process makes {twin.key.file_name}", retry_after=RETRY_S
                )
            try:
                if not (await self._row(twin)).is_stored:
                    await self._remake_under(lease, twin)
            finally:
                await lease.release()

    async def _remake_under(self, lease: Lease, twin: NarRecord) -> None:
        original = await self._original(twin)
        try:
            await self._remake_from(original, lease, twin)
        except Corrupt:
            if not original.is_stored or await self._verify(original) is not None:
                raise
            await self._remake_from(
                original, lease, twin
            )  # the original was damaged, and is fetched

    async def _remake_from(self, original: NarRecord, lease: Lease, twin: NarRecord) -> None:
        level, room = twin.made_level, twin.file_size or 0
        async with self._converter.converted(original, level, room=room, is_urgent=True) as made:
            if made.file_hash != twin.file_hash:
                self._hopeless.add(twin.key)
                self._count("failed").inc()
                raise _otherwise(twin)
            record = await self._converter.publish(original, twin.key, made, level, lease)
        try:
            await self._row(twin)  # `mark_stored` would write a new one
            entries = await self._catalog.mark_stored(record, lease.fence)
        except Conflict as error:  # another process has made it under a later lease
            if (await self._row(twin)).is_stored:
                return
            raise Unavailable(str(error), retry_after=RETRY_S) from error
        except NotFound:  # or Blocked
            await self._converter.withdraw(twin.key, lease)
            raise
        await self._records.published(record, entries)
        self._count("remade").inc()

    async def _row(self, twin: NarRecord) -> NarRecord:
        """Return the present row of a twin. Raises NotFound if its path was removed."""
        current = await self._catalog.nar(twin.key)
        if current is None:
            raise NotFound(f"{twin.key.file_name} was removed")
        return current

    async def _original(self, twin: NarRecord) -> NarRecord:
        """Return the row of a twin's original, or one with the known facts if it is gone."""
        key = NarKey.parse(twin.made_from)
        return await self._catalog.nar(key) or NarRecord(
            key=key,
            compression=COMPRESSIONS[key.extension],
            nar_hash=twin.nar_hash,
            nar_size=twin.nar_size,
            upstream=twin.upstream,
            origin_url=twin.origin_url,
        )


def _otherwise(twin: NarRecord) -> NotFound:
    return NotFound(
        f"{twin.key.file_name} cannot be made again as it was: another version of zstd writes other"
        " bytes"
    )
