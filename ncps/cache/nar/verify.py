"""Verifying stored NARs: reads the bytes, and corrects their row.

the file has another hash than the row says     damaged: set aside, and fetched again later
the NAR inside is that of the narinfo           verified
no narinfo names the NAR                        the row gets the facts of the NAR inside
another NAR is inside                           the narinfos are withdrawn, and the pair of
                                                NarHash and FileHash is remembered as wrong;
                                                the file stays if its name is its hash
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.aio.single_flight import SingleFlight
from ncps.aio.waiting import sleep
from ncps.cache.nar.heal import Healing
from ncps.cache.nar.quarantine import Quarantine
from ncps.cache.nar.stored import stored_key
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.narinfo.state import SymbolNews
from ncps.cache.world import World
from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NotFound, Unavailable
from ncps.nix.debuginfo import SymbolSearch
from ncps.nix.hashes import Hash
from ncps.nix.narcheck import FileDigest, NarDigest
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.ports import NarRecord

ATTEMPTS: Final = 3
"""If an object changes while it is read, it is read this many times, at most."""


@frozen(kw_only=True)
class Reading:
    """The facts that were computed from the bytes of a stored object.

    :param tag: tag of the object that was read.
    :param nar_hash: hash of the NAR inside; None if the file cannot be decompressed.
    :param trouble: why it cannot be decompressed; empty if no decoder reads this compression.
    :param build_ids: build IDs of the files with symbols in it; see `SymbolSearch`.
    """

    tag: str
    file_hash: Hash
    file_size: int
    nar_hash: Hash | None = None
    nar_size: int | None = None
    trouble: str = ""
    build_ids: Sequence[str] = ()


class _Inside:
    """Hashes the NAR in a file. For a file without a NAR inside, the hash is None."""

    def __init__(self, compression: str, max_size: int | None) -> None:
        self._digest: NarDigest | None = None
        self.symbols = SymbolSearch()
        if is_supported(compression):
            ratio = None if max_size is not None else Ratio(USUAL, lambda: None)
            self._digest = NarDigest(
                compression, max_size=max_size, ratio=ratio, follow=self.symbols.feed
            )
        self._trouble = ""

    def feed(self, data: bytes) -> None:
        if self._digest is None:
            return
        try:
            self._digest.feed(data)
        except Corrupt as error:
            self._digest, self._trouble = None, str(error)

    def finish(self) -> tuple[Hash | None, int | None, str]:
        if self._digest is not None:
            try:
                return *self._digest.finish(), ""
            except TooDear:
                pass  # the NAR stays unknown
            except Corrupt as error:
                self._trouble = str(error)
        return None, None, self._trouble


class Verifier:
    """Verifies each NAR once, for all callers that ask for it at the same time."""

    _log = Logger()

    def __init__(
        self,
        world: World,
        quarantine: Quarantine,
        narinfos: NarInfos,
        healing: Healing,
        symbols: SymbolNews,
    ) -> None:
        self.healing = healing
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.nars
        self._narinfos = narinfos
        self._quarantine = quarantine
        self._workers = world.threads
        self._symbols = symbols
        self._inspections = world.metrics.inspections
        self._flights: SingleFlight[tuple[NarKey, bool, bool], NarRecord | None] = SingleFlight(
            world.tasks, "verify"
        )

    async def verify(self, nar: NarRecord, bytes_per_second: int = 0) -> NarRecord | None:
        """Read a stored NAR; return its row after that, or None if its bytes are gone.

        Raises Unavailable if the store or the catalog fails now.

        :param bytes_per_second: the highest average rate of reading; 0 for no limit.
        """
        return await self._joined(nar, bytes_per_second, is_brief=False)

    async def compare(self, nar: NarRecord) -> NarRecord | None:
        """Do as `verify`, but only find out whether the file is still that of the row."""
        is_brief = nar.file_hash is not None and stored_key(nar) == nar.key
        return await self._joined(nar, 0, is_brief=is_brief)

    async def _joined(self, nar: NarRecord, rate: int, *, is_brief: bool) -> NarRecord | None:
        step = partial(self._verify, nar, rate, is_brief=is_brief)
        return await self._flights.join((nar.key, rate > 0, is_brief), step)

    async def _verify(self, nar: NarRecord, rate: int, *, is_brief: bool) -> NarRecord | None:
        try:
            seen = await self._read_steady(nar, rate, is_brief=is_brief)
        except NotFound as error:
            self._inspections("missing").inc()
            await self.healing.heal(nar, error)
            return None
        except Corrupt as error:
            await self._damaged(nar, error)
            return None
        if not _is_same_file(nar, seen):
            await self._damaged(nar, Corrupt(f"its hash is {seen.file_hash}"))
            return None
        if is_brief:
            return await self._note(nar, evolve(nar, stored_tag=seen.tag))
        record = evolve(nar, stored_tag=seen.tag, verified_at=utc_now(self._clock))
        if nar.nar_hash is None:
            self._inspections("right").inc()
            return await self._note(nar, _described(record, seen))
        if (nar.nar_hash, nar.nar_size) == (seen.nar_hash, nar.nar_size and seen.nar_size):
            self._inspections("right").inc()
            self._symbols.verified(nar, seen.build_ids)
            return await self._note(nar, record)
        if seen.nar_hash is None and not seen.trouble:
            return await self._note(nar, evolve(record, verified_at=nar.verified_at))
        self._inspections("wrong").inc()
        return await self._wrong(nar, record, seen)

    async def _note(self, nar: NarRecord, record: NarRecord) -> NarRecord | None:
        if await self._catalog.mark_verified(record):
            return record
        current = await self._catalog.nar(nar.key)  # other bytes were stored since then
        return current if current is not None and current.is_stored else None

    async def _damaged(self, nar: NarRecord, error: Corrupt) -> None:
        self._inspections("damaged").inc()
        await self.healing.heal(nar, error)

    async def _wrong(self, nar: NarRecord, record: NarRecord, seen: Reading) -> NarRecord | None:
        is_right_by_name = stored_key(nar) == nar.key and _is_named(nar.key, seen.file_hash)
        assert nar.nar_hash is not None
        self._log.error(
            "stored NAR {key} is not what its narinfo says{fate}: {reason}",
            key=nar.key.file_name,
            fate="" if is_right_by_name else " and is set aside",
            reason=_difference(nar, seen),
        )
        if seen.nar_hash not in {None, nar.nar_hash}:
            # Otherwise NarHash and FileHash may belong together: Compression or NarSize may be
            # wrong, or a bound of ours too low.
            await self._catalog.note_wrong(nar.nar_hash, seen.file_hash, utc_now(self._clock))
        digests = await self._narinfos.withdraw(nar.key)
        if is_right_by_name:
            kept = await self._note(nar, _described(record, seen))
        else:
            await self._catalog.forget_nar(nar.key)
            await self._quarantine.put(stored_key(nar))
            kept = None
        await self._narinfos.relearn(digests)
        return kept

    async def _read_steady(self, nar: NarRecord, rate: int, *, is_brief: bool) -> Reading:
        """Read the object; read it again if it was replaced or changed during that.

        Raises NotFound if it is gone, Corrupt if it cannot be read, Unavailable if it changes
        during each of `ATTEMPTS` readings.
        """
        where = stored_key(nar)
        for _ in range(ATTEMPTS):
            before = await self._store.stat(where)
            try:
                return await self._read(nar, rate, is_brief=is_brief)
            except Corrupt:
                after = await self._store.stat(where)
                if before == after:
                    raise
        raise Unavailable(f"{where.file_name} changed each time it was read")

    async def _read(self, nar: NarRecord, rate: int, *, is_brief: bool) -> Reading:
        where = stored_key(nar)
        stat = await self._store.stat(where)
        if stat is None:
            raise NotFound(f"{where.file_name} is not in the store")
        encoding = nar.encoding or nar.compression or COMPRESSIONS[where.extension]
        file, inside = FileDigest(), _Inside("" if is_brief else encoding, nar.nar_size)

        def feed_blocking(data: bytes) -> None:
            file.feed(data)
            inside.feed(data)

        body = await self._store.open(where, size=stat.size, tag=stat.tag)
        try:
            async for chunk in body:
                began = self._clock.seconds()
                await self._workers.run(feed_blocking, chunk)
                if rate:
                    due = len(chunk) / rate - (self._clock.seconds() - began)
                    await sleep(self._clock, max(0.0, due))
        finally:
            body.close()
        nar_hash, nar_size, trouble = await self._workers.run(inside.finish)
        return Reading(
            tag=stat.tag,
            file_hash=file.finish(),
            file_size=stat.size,
            nar_hash=nar_hash,
            nar_size=nar_size,
            trouble=trouble,
            build_ids=inside.symbols.build_ids,
        )


def _is_same_file(nar: NarRecord, seen: Reading) -> bool:
    """Return whether the bytes behind the URL are still those of the row."""
    if nar.file_hash is None:
        return True
    is_recompressed = stored_key(nar) != nar.key
    return nar.file_hash == (seen.nar_hash if is_recompressed else seen.file_hash)


def _difference(nar: NarRecord, seen: Reading) -> str:
    """Say for the log how the NAR inside differs from that of the narinfo."""
    if seen.trouble:
        return seen.trouble
    if seen.nar_hash == nar.nar_hash:
        return f"NAR of {seen.nar_size} bytes instead of {nar.nar_size}"
    return f"NAR hash {seen.nar_hash} instead of {nar.nar_hash}"


def _is_named(key: NarKey, file_hash: Hash) -> bool:
    try:
        return key.as_hash() == file_hash
    except Malformed:
        return False


def _described(nar: NarRecord, seen: Reading) -> NarRecord:
    """Return the row of a file for which no narinfo is known."""
    compression = COMPRESSIONS[nar.key.extension] if seen.nar_hash is not None else ""
    return evolve(
        nar,
        compression=compression,
        encoding=compression,
        file_hash=seen.file_hash,
        file_size=seen.file_size,
        nar_hash=seen.nar_hash,
        nar_size=seen.nar_size,
    )
