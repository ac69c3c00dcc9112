"""Adoption: bytes that lie in the store without a row are verified and taken over.

They come from a crash between publication and row, from a lost catalog, or from the Go program
of the same name, which keeps an uncompressed NAR `X.nar` as `X.nar.zst`. What a narinfo says of a
file is not signed, so bytes become those of its NAR only once they were read as a NAR: also where
the file lies under the conventional name that the narinfo has for it. Then it gets the NAR's name,
too, and its own row when it is asked for by its own name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.aio.recent import RecentSet
from ncps.aio.spool import Digest
from ncps.aio.waiting import SingleFlight
from ncps.cache.nar.judge import Doubtful, Judge, Unverifiable, Verdict
from ncps.cache.nar.objects import Objects
from ncps.cache.nar.quarantine import Quarantine
from ncps.cache.nar.served import DecodedBody
from ncps.cache.world import World
from ncps.errors import Corrupt, Malformed, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import COMPRESSIONS, EXTENSIONS, NarKey, conventional_key
from ncps.ports import Body, NarRecord, Stat

_RECOMPRESSED = ("zstd", "xz")

UNVOUCHED_S = 600.0
"""How long bytes that their name does not vouch for are not hashed again."""

UNVOUCHED_ENTRIES = 10_000

LOOKED_S = 600.0
"""How long a name is not looked at again under which bytes may lie that another name has, too."""

LOOKED_ENTRIES = 10_000

LARGEST_EXCESS = 1024 * 1024
"""Bytes that a file may have beyond nine eighths of its NAR's; no compression adds as much."""


def _feed_blocking(digests: tuple[Digest, ...], data: bytes) -> None:
    for digest in digests:
        digest.feed(data)


def _conventional(nar: NarRecord | None) -> NarKey | None:
    """The name that a narinfo has for the file."""
    if nar is None or not nar.origin_url:
        return None
    try:
        return conventional_key(nar.origin_url)
    except Malformed:
        return None


def _named_by_nar(key: NarKey) -> NarRecord:
    """What the name of a file says if it is the hash of a NAR: then that NAR vouches for it."""
    compression = COMPRESSIONS[key.extension]
    return NarRecord(key=key, compression=compression, nar_hash=key.as_hash())


def _attempt(key: NarKey, nar: NarRecord | None, stat: Stat) -> tuple[object, ...]:
    """What was tried when bytes were refused."""
    return key, None if nar is None else nar.nar_hash, stat.key, stat.tag


class Adoption:
    """See the module."""

    _log = Logger()

    def __init__(self, world: World, quarantine: Quarantine) -> None:
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
        """Return the record of a NAR whose bytes were found, right, and marked as stored.

        None if there are none, or somebody is at them who fetches, removes or takes them over;
        wrong ones are quarantined. Unavailable.

        :param nar: what is known; None if no narinfo is: then only the name can vouch for it, as
            the hash of the file or of the NAR inside, and other bytes may still be right.
        """
        located = await self._locate(key, nar)
        if located is None or _attempt(key, nar, located[0]) in self._unvouched:
            return None
        return await self._flights.join(key, lambda: self._take(key, nar))

    async def own(self, key: NarKey) -> NarRecord | None:
        """Like `adopt`, for a name whose bytes can be served from another one.

        None also if the store cannot tell, or was asked within the last `LOOKED_S` seconds.
        """
        if key in self._looked:
            return None
        self._looked.add(key)
        try:
            return await self.adopt(key, None)
        except Unavailable:
            return None

    async def open(self, nar: NarRecord) -> Body:
        """Open what lies in the store of a NAR, unverified, as its URL stands for it.

        NotFound, Unavailable, Corrupt.
        """
        located = await self._locate(nar.key, nar)
        if located is None:
            raise NotFound(f"{nar.key.file_name} is not in the store")
        stat, encoding = located
        return await self._open(stat, "" if encoding == nar.compression else encoding)

    async def _locate(self, key: NarKey, nar: NarRecord | None) -> tuple[Stat, str] | None:
        """Find the object that holds the bytes, and how they are encoded there."""
        candidates = [(key, nar.compression if nar is not None else "")]
        if nar is not None and nar.compression == "none":
            candidates += [(NarKey(key.name, EXTENSIONS[e]), e) for e in _RECOMPRESSED]
        named = _conventional(nar)
        if nar is not None and named is not None and named != key:
            candidates.append((named, nar.compression))
        for candidate, encoding in candidates:
            stat = await self._store.stat(candidate)
            if stat is not None:
                return stat, encoding
        return None

    async def _take(self, key: NarKey, nar: NarRecord | None) -> NarRecord | None:
        located = await self._locate(key, nar)
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
        stat = await self._store.stat(where)
        if stat is None:
            return None
        if nar is not None and nar.nar_size is not None:
            largest = nar.nar_size + nar.nar_size // 8 + LARGEST_EXCESS
            if stat.size > largest:
                error = Corrupt(f"{stat.size} bytes are too many for a NAR of {nar.nar_size}")
                await self._refuse(key, nar, stat, error)
                return None
        is_recompressed = nar is not None and encoding != nar.compression
        opened = partial(self._open, stat, encoding if is_recompressed else "")
        try:
            try:
                verdict = await self._verify(Judge(key, nar, is_thorough=True), opened)
            except Corrupt:
                if nar is not None:
                    raise
                named = _named_by_nar(key)
                verdict = await self._verify(Judge(key, named, is_thorough=True), opened)
                nar, encoding = named, named.compression
            if where != key and not is_recompressed:
                stat = await self._store.copy(where, key, tag=stat.tag)
        except NotFound:
            return None
        except Corrupt as error:
            await self._refuse(key, nar, stat, error)
            return None
        except StorageFull as error:
            self._log.warn("{reason}", reason=str(error))
            return None
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

    async def _refuse(self, key: NarKey, nar: NarRecord | None, stat: Stat, error: Corrupt) -> None:
        """Leave bytes alone that nothing vouches for; set aside those that are surely wrong."""
        where = stat.key
        is_wrong = nar is not None and where == key and not isinstance(error, Unverifiable)
        self._log.error(
            "NAR {key} in the store is not taken over{fate}: {reason}",
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
        except (StorageFull, Unavailable) as error:  # nobody is worse off for it staying there
            self._log.warn(
                "{key} cannot be set aside: {reason}", key=where.file_name, reason=str(error)
            )

    async def _open(self, stat: Stat, encoding: str) -> Body:
        """Open the object, and undo the encoding, if one is given."""
        body = await self._store.open(stat.key, size=stat.size, tag=stat.tag)
        return DecodedBody(body, self._workers, encoding, 0, None) if encoding else body

    async def _verify(self, judge: Judge, opened: Callable[[], Awaitable[Body]]) -> Verdict:
        """Judge the bytes; where the narinfo says something else of the file, by the NAR inside."""
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
