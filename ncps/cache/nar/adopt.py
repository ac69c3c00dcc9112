"""Adoption: verifies bytes that lie in the store without a row, and records them.

Such bytes come from a crash between publication and row, from a lost catalog, or from the Go
program of the same name, which keeps an uncompressed NAR `X.nar` as `X.nar.zst`. The signature of a
narinfo does not cover its facts about the file. So the adoption reads the bytes as a NAR before it
records them as the bytes of that NAR. It also adopts a file under the conventional name that the
narinfo gives. It records that file under the NAR's name, and in a row of its own when a client asks
for it by its own name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.aio.growing import Digest
from ncps.aio.recent import RecentSet
from ncps.aio.single_flight import SingleFlight
from ncps.cache.nar.objects import Objects
from ncps.cache.nar.quarantine import Quarantine
from ncps.cache.nar.stored import DecodedBody, find_object
from ncps.cache.narinfo.state import SymbolNews
from ncps.cache.world import World
from ncps.errors import Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.judge import Doubtful, Judge, Unverifiable, Verdict
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.ports import Body, NarRecord, Stat

UNVOUCHED_S = 600.0
"""Seconds for which bytes are not hashed again after their name did not vouch for them."""

UNVOUCHED_ENTRIES = 10_000

LOOKED_S = 600.0
"""Seconds between two look-ups of one name in the store, if another name serves its bytes."""

LOOKED_ENTRIES = 10_000

LARGEST_EXCESS = 1024 * 1024
"""Bytes that a file may have beyond nine eighths of its NAR's size; no compression adds as much."""


def _feed_blocking(digests: tuple[Digest, ...], data: bytes) -> None:
    for digest in digests:
        digest.feed(data)


def _named_by_nar(key: NarKey) -> NarRecord:
    """Return the row of a file whose name is its NarHash: the NAR vouches for such a file."""
    compression = COMPRESSIONS[key.extension]
    return NarRecord(key=key, compression=compression, nar_hash=key.as_hash())


def _attempt(key: NarKey, nar: NarRecord | None, stat: Stat) -> tuple[object, ...]:
    """Return a key for a failed attempt to adopt this object as the bytes of this NAR."""
    return key, None if nar is None else nar.nar_hash, stat.key, stat.tag


class Adoption:
    """Verifies stored bytes that have no row, and records them."""

    _log = Logger()

    def __init__(self, world: World, quarantine: Quarantine, symbols: SymbolNews) -> None:
        self._symbols = symbols
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.nars
        self._quarantine = quarantine
        self._workers = world.threads
        self._objects = Objects(world)
        self._unvouched = RecentSet(world.clock, ttl_s=UNVOUCHED_S, max_entries=UNVOUCHED_ENTRIES)
        self._looked = RecentSet(world.clock, ttl_s=LOOKED_S, max_entries=LOOKED_ENTRIES)
        self._flights: SingleFlight[NarKey, NarRecord | None] = SingleFlight(world.tasks, "adopt")

    async def adopt(self, key: NarKey, nar: NarRecord | None) -> NarRecord | None:
        """Find and verify the bytes of a NAR; return its record, marked as stored.

        Returns None if there are no such bytes, or if another process fetches, removes or adopts
        them. Sets wrong bytes aside. Raises Unavailable if the store or the catalog cannot tell.

        :param nar: the known record; None if no narinfo is known. Then only the name can vouch for
            the bytes, as the hash of the file or of the NAR inside. Bytes with another hash stay
            where they are, because they may be right.
        """
        located = await find_object(self._store, key, nar)
        return None if located is None else await self.take_over(key, nar, located[0])

    async def take_over(self, key: NarKey, nar: NarRecord | None, found: Stat) -> NarRecord | None:
        """Do as `adopt` with an object that `find_object` has found."""
        if _attempt(key, nar, found) in self._unvouched:
            return None
        return await self._flights.join(key, lambda: self._take(key, nar))

    async def own(self, key: NarKey) -> NarRecord | None:
        """Do as `adopt` for a name whose bytes another name serves, too.

        Returns None also if the store cannot tell, or was asked within the last `LOOKED_S` seconds.
        """
        if key in self._looked:
            return None
        self._looked.add(key)
        try:
            return await self.adopt(key, None)
        except Unavailable:
            return None

    async def open(self, nar: NarRecord) -> Body:
        """Open the stored bytes of a NAR, decoded to the form of its URL, without verifying them.

        Raises NotFound if there are none, Corrupt if they are not as recorded, Unavailable if the
        store fails now.
        """
        located = await find_object(self._store, nar.key, nar)
        if located is None:
            raise NotFound(f"{nar.key.file_name} is not in the store")
        stat, encoding = located
        return await self._open(stat, "" if encoding == nar.compression else encoding)

    async def _take(self, key: NarKey, nar: NarRecord | None) -> NarRecord | None:
        located = await find_object(self._store, key, nar)
        if located is None:
            return None
        async with self._objects.holding() as held:
            if not (await held.take_object(key) and await held.take_object(located[0].key)):
                return None
            current = await self._catalog.nar(key)
            if current is not None and current.is_stored:
                return current
            return await self._take_alone(key, nar, located[0].key, located[1])

    async def _take_alone(
        self, key: NarKey, nar: NarRecord | None, where: NarKey, encoding: str
    ) -> NarRecord | None:
        """Verify an object and record it as the bytes of a NAR; return None if that fails."""
        stat = await self._store.stat(where)
        if stat is None:
            return None
        try:
            record, build_ids = await self._verified(key, nar, stat, encoding)
        except NotFound:
            return None
        except Corrupt as error:
            await self._refuse(key, nar, stat, error)
            return None
        except StorageFull as error:
            self._log.warn("{reason}", reason=str(error))
            return None
        try:
            await self._catalog.mark_stored(record)
        except (StorageFull, Unavailable) as error:  # the bytes are right nevertheless
            self._log.warn(
                "stored NAR {key} is served but not recorded: {reason}",
                key=where.file_name,
                reason=str(error),
            )
        else:
            self._log.info("adopted stored NAR {key}", key=where.file_name)
            self._symbols.verified(record, build_ids)
        return record

    async def _verified(
        self, key: NarKey, nar: NarRecord | None, stat: Stat, encoding: str
    ) -> tuple[NarRecord, Sequence[str]]:
        """Read an object; return the row of the NAR in it, under the NAR's own name.

        Returns also the build IDs of the files with symbols in the NAR. Raises Corrupt if nothing
        vouches for the object, NotFound if it is absent, StorageFull if the store accepts no
        writes, Unavailable if the store or the catalog fails now.
        """
        if nar is not None and nar.nar_size is not None:
            largest = nar.nar_size + nar.nar_size // 8 + LARGEST_EXCESS
            if stat.size > largest:
                raise Corrupt(f"{stat.size} bytes are too many for a NAR of {nar.nar_size}")
        is_recompressed = nar is not None and encoding != nar.compression
        opened = partial(self._open, stat, encoding if is_recompressed else "")
        try:
            verdict = await self._verify(Judge(key, nar, is_thorough=True), opened)
        except Corrupt:
            if nar is not None:
                raise
            nar = _named_by_nar(key)
            verdict = await self._verify(Judge(key, nar, is_thorough=True), opened)
            encoding = nar.compression
        if stat.key != key and not is_recompressed:
            stat = await self._store.copy(stat.key, key, tag=stat.tag)
        now = utc_now(self._clock)
        record = evolve(
            nar if nar is not None else NarRecord(key=key, compression=""),
            file_size=verdict.size,
            file_hash=verdict.sha256,
            encoding=encoding,
            stored_size=stat.size,
            stored_tag=stat.tag,
            stored_at=now,
            verified_at=now if verdict.nar_verified else None,
        )
        return record, verdict.build_ids

    async def _refuse(self, key: NarKey, nar: NarRecord | None, stat: Stat, error: Corrupt) -> None:
        """Set aside bytes that are surely wrong; leave alone bytes that nothing vouches for."""
        where = stat.key
        is_wrong = nar is not None and where == key and not isinstance(error, Unverifiable)
        self._log.error(
            "NAR {key} in the store is not adopted{fate}: {reason}",
            key=where.file_name,
            fate=" but set aside" if is_wrong else "",
            reason=str(error),
        )
        self._unvouched.add(_attempt(key, nar, stat))
        if is_wrong:
            await self._set_aside(where)

    async def _set_aside(self, where: NarKey) -> None:
        try:
            await self._quarantine.put(where)
        except (StorageFull, Unavailable) as error:  # unrecorded bytes do no harm
            self._log.warn(
                "{key} cannot be set aside: {reason}", key=where.file_name, reason=str(error)
            )

    async def _open(self, stat: Stat, encoding: str) -> Body:
        """Open the object, and decode it if an encoding is given."""
        body = await self._store.open(stat.key, size=stat.size, tag=stat.tag)
        return DecodedBody(body, self._workers, encoding, 0, None) if encoding else body

    async def _verify(self, judge: Judge, opened: Callable[[], Awaitable[Body]]) -> Verdict:
        """Judge the bytes; if the narinfo contradicts the file, the NAR inside decides."""
        size = await self._feed(await opened(), judge.digests)
        try:
            return await self._workers.run(judge.judge, size)
        except Doubtful:
            inspector = judge.inspector()
            await self._feed(await opened(), (inspector,))
            return await self._workers.run(judge.overrule, inspector, size)

    async def _feed(self, body: Body, digests: tuple[Digest, ...]) -> int:
        size = 0
        try:
            async for chunk in body:
                size += len(chunk)
                await self._workers.run(_feed_blocking, digests, chunk)
        finally:
            body.close()
        return size
