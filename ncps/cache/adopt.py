"""Adoption: bytes that lie in the store without a row are verified and taken over.

They come from a crash between publication and row, from a lost catalog, or from the Go program
of the same name, which keeps an uncompressed NAR `X.nar` as `X.nar.zst`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.cache.negatives import Negatives
from ncps.cache.objects import Objects
from ncps.cache.seal import Doubtful, Seal, Unverifiable, Verdict
from ncps.cache.served import DecodedBody
from ncps.clocks import utc_now
from ncps.errors import Corrupt, NotFound, StorageFull, Unavailable
from ncps.flights import Flights
from ncps.nix.narurl import EXTENSIONS, NarKey
from ncps.ports import Body, Catalog, Leases, NarRecord, NarStore
from ncps.spool import Digest
from ncps.tasks import Tasks
from ncps.workers import Threads

_RECOMPRESSED = ("zstd", "xz")

UNVOUCHED_S = 600.0
"""How long bytes that their name does not vouch for are not hashed again."""

UNVOUCHED_ENTRIES = 10_000


def _feed_blocking(digests: tuple[Digest, ...], data: bytes) -> None:
    for digest in digests:
        digest.feed(data)


class Adoption:
    """See the module."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        tasks: Tasks,
        catalog: Catalog,
        store: NarStore,
        workers: Threads,
        leases: Leases,
    ) -> None:
        self._clock = clock
        self._catalog = catalog
        self._store = store
        self._workers = workers
        self._objects = Objects(catalog=catalog, store=store, leases=leases)
        self._unvouched = Negatives(clock, ttl_s=UNVOUCHED_S, max_entries=UNVOUCHED_ENTRIES)
        self._flights: Flights[NarKey, NarRecord | None] = Flights(tasks, "adopt")

    async def adopt(self, key: NarKey, nar: NarRecord | None) -> NarRecord | None:
        """Return the record of a NAR whose bytes were found, right, and marked as stored.

        None if there are none, or somebody is at them who fetches, removes or takes them over;
        wrong ones are quarantined. Unavailable.

        :param nar: what is known; None if no narinfo is: then only the name can vouch for it,
            and bytes of another hash may still be right, since not all names are file hashes.
        """
        if nar is None and key in self._unvouched:
            return None
        if await self._locate(key, nar) is None:
            return None
        return await self._flights.join(key, lambda: self._take(key, nar))

    async def open(self, nar: NarRecord) -> Body:
        """Open what lies in the store of a NAR, unverified, as its URL stands for it.

        NotFound, Unavailable, Corrupt.
        """
        located = await self._locate(nar.key, nar)
        stat = None if located is None else await self._store.stat(located[0])
        if located is None or stat is None:
            raise NotFound(f"{nar.key.file_name} is not in the store")
        where, encoding = located
        return await self._open(where, stat.size, encoding if where != nar.key else "")

    async def _locate(self, key: NarKey, nar: NarRecord | None) -> tuple[NarKey, str] | None:
        """Find the object that holds the bytes, and how they are encoded there."""
        if await self._store.stat(key) is not None:
            return key, nar.compression if nar is not None else ""
        if nar is not None and nar.compression == "none":
            for encoding in _RECOMPRESSED:
                other = NarKey(key.name, EXTENSIONS[encoding])
                if await self._store.stat(other) is not None:
                    return other, encoding
        return None

    async def _take(self, key: NarKey, nar: NarRecord | None) -> NarRecord | None:
        located = await self._locate(key, nar)
        if located is None:
            return None
        async with self._objects.holding() as held:
            if not (await held.take_object(key) and await held.take_object(located[0])):
                return None
            current = await self._catalog.nar(key)
            if current is not None and current.is_stored:
                return current
            return await self._take_alone(key, nar, *located)

    async def _take_alone(
        self, key: NarKey, nar: NarRecord | None, where: NarKey, encoding: str
    ) -> NarRecord | None:
        stat = await self._store.stat(where)
        if stat is None:
            return None
        try:
            seal = Seal(key, nar)
            opened = partial(self._open, where, stat.size, encoding if where != key else "")
            verdict = await self._verify(seal, opened)
        except NotFound:
            return None
        except Corrupt as error:
            await self._refuse(key, nar, where, error)
            return None
        now = utc_now(self._clock)
        record = evolve(
            nar if nar is not None else NarRecord(key=key, compression=""),
            file_size=verdict.size,
            file_hash=verdict.sha256,
            encoding=encoding,
            stored_size=stat.size,
            stored_at=now,
            verified_at=now if verdict.nar_verified else None,
        )
        try:
            await self._catalog.mark_stored(record)
        except (StorageFull, Unavailable) as error:  # the bytes are right all the same
            self._log.warn(
                "stored NAR {key} is served but not recorded: {reason}",
                key=where.file_name,
                reason=str(error),
            )
        else:
            self._log.info("took over stored NAR {key}", key=where.file_name)
        return record

    async def _refuse(
        self, key: NarKey, nar: NarRecord | None, where: NarKey, error: Corrupt
    ) -> None:
        """Leave bytes alone that nothing vouches for; set aside those that are surely wrong."""
        is_wrong = nar is not None and where == key and not isinstance(error, Unverifiable)
        self._log.error(
            "NAR {key} in the store is not taken over{fate}: {reason}",
            key=where.file_name,
            fate=" but set aside" if is_wrong else "",
            reason=str(error),
        )
        if is_wrong:
            await self._set_aside(where)
        elif nar is None:
            self._unvouched.add(key)

    async def _set_aside(self, where: NarKey) -> None:
        try:
            await self._store.quarantine(where)
        except (StorageFull, Unavailable) as error:  # nobody is worse off for it staying there
            self._log.warn(
                "{key} cannot be set aside: {reason}", key=where.file_name, reason=str(error)
            )

    async def _open(self, where: NarKey, size: int, encoding: str) -> Body:
        """Open the object, and undo the encoding, if one is given."""
        body = await self._store.open(where, size=size)
        return DecodedBody(body, self._workers, encoding, 0, None) if encoding else body

    async def _verify(self, seal: Seal, opened: Callable[[], Awaitable[Body]]) -> Verdict:
        """Judge the bytes; where the narinfo says something else of the file, by the NAR inside."""
        size = await self._feed(await opened(), seal.digests)
        try:
            return await self._workers.run(seal.judge, size)
        except Doubtful:
            inspector = seal.inspector()
            await self._feed(await opened(), (inspector,))
            return await self._workers.run(seal.overrule, inspector, size)

    async def _feed(self, body: Body, digests: tuple[Digest, ...]) -> int:
        size = 0
        try:
            async for chunk in body:
                size += len(chunk)
                await self._workers.run(_feed_blocking, digests, chunk)
        finally:
            body.close()
        return size
