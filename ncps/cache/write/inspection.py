"""Inspection of uploads: finds out which NAR is in a file, while the file arrives or later.

At most `PLACES` compressed files are inspected at the same time, because a decoder takes up to 128
MiB of memory. An upload that finds no free place is stored first and inspected later. Its narinfo
waits for the inspection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar, cast

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.clocks import utc_now
from ncps.aio.recent import BoundedMap
from ncps.aio.single_flight import SingleFlight
from ncps.aio.waiting import within
from ncps.cache.nar.stored import open_stored
from ncps.cache.world import World
from ncps.cache.write.rules import UploadRules
from ncps.codec import is_supported
from ncps.codec.ratio import Ratio
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, Unavailable
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.contentcheck import ContentCheck
from ncps.nix.debuginfo import build_ids_in
from ncps.nix.hashes import Hash
from ncps.nix.nar import NarParser
from ncps.nix.narcheck import NarDigest
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

P = ParamSpec("P")
R = TypeVar("R")

PLACES: Final = 4
"""Compressed files that are inspected at the same time, at most; and as many small ones."""

MOST_SYMBOLS: Final = 50_000
"""Build IDs in NARs whose narinfos have not arrived, at most; each takes about 100 bytes."""

MOST_UNCLAIMED: Final = 2_000
"""Rows of NARs that were stored a moment ago and whose narinfos have not arrived, at most."""

WAITING: Final = 10_000
"""Files that wait for a place, at most."""

DEADLINE_S: Final = 45.0
"""Seconds that a client waits for an inspection. Reverse proxies usually wait for 60 s. The
inspection continues, and the next request of the client joins it or finds it done."""

QUEUE_S: Final = 3600.0
"""Seconds that a file waits for a place, at most; after that its narinfo starts the inspection."""

_DEAR: Final = frozenset({"xz", "bzip2"})


class Inside:
    """The inspection of one file: hashes the NAR inside, and gives up if that is too expensive.

    :param limit: see `UploadRules.max_ratio`.
    :param most: bytes of the NAR; more are Corrupt. None: any number.
    :ivar build_ids: of the files with symbols in the NAR, once `finish` has returned.
    """

    def __init__(self, compression: str, limit: int, most: int | None) -> None:
        self.compression = compression
        self.build_ids: list[str] = []
        self._is_too_dear = False
        self._size = 0
        # A file without compression is the NAR itself, and its hash is computed anyway.
        self._parser = NarParser() if compression == "none" else None
        ratio = Ratio(limit, self._give_up)
        self._digest = NarDigest(compression, max_size=most, ratio=ratio, listing=True)

    def _give_up(self) -> None:
        self._is_too_dear = True

    def feed(self, data: bytes) -> None:
        """Inspect the next bytes. Raises Corrupt if there is no NAR inside."""
        if self._is_too_dear:
            return
        if self._parser is not None:
            self._size += len(data)
            self._parser.feed(data)
            return
        try:
            self._digest.feed(data)
        except Corrupt:
            if not self._is_too_dear:
                raise

    def finish(self, file_hash: Hash) -> tuple[Hash, int] | None:
        """Return NarHash and NarSize; None if it has given up. Raises Corrupt as `feed`.

        :param file_hash: the hash of the file.
        """
        if self._is_too_dear:
            return None
        if self._parser is not None:
            self.build_ids = build_ids_in(self._parser.finish())
            return file_hash, self._size
        try:
            found = self._digest.finish()
        except TooDear:
            return None
        self.build_ids = _symbols_of(self._digest)
        return found


def _symbols_of(digest: NarDigest) -> list[str]:
    return [] if digest.listing is None else build_ids_in(digest.listing)


class UploadInspection:
    """Inspects uploads.

    :ivar found: called with the build IDs of files with symbols in a NAR whose narinfo is accepted.
    """

    _log = Logger()

    def __init__(self, world: World, rules: UploadRules) -> None:
        self.found: Callable[[NarKey, Sequence[str]], object] = lambda *_: None
        self._symbols: BoundedMap[NarKey, Sequence[str]] = BoundedMap(MOST_SYMBOLS, size_of=len)
        self._unclaimed: BoundedMap[NarKey, NarRecord] = BoundedMap(MOST_UNCLAIMED)
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.nars
        self._tasks = world.tasks
        self._threads = world.threads
        self._rules = rules
        self._places = Bulkhead(
            world.clock, "looks into uploads", size=PLACES, queue=WAITING, patience_s=QUEUE_S
        )
        self._small_places = Bulkhead(
            world.clock,
            "looks into small uploads",
            size=PLACES,
            queue=WAITING,
            patience_s=DEADLINE_S,
        )
        self._flights: SingleFlight[tuple[object, ...], NarRecord] = SingleFlight(
            world.tasks, "look into"
        )
        self._looks: SingleFlight[int, Any] = SingleFlight(world.tasks, "look into small file")
        self._numbers = count()

    def begin(self, compression: str) -> Inside | None:
        """Return an `Inside` for an upload that arrives; None if it is inspected later."""
        inside = self.inside(compression)
        if inside is None or compression == "none":
            return inside
        if not self._places.free:
            return None
        self._tasks.start("take a place", self._places.acquire())  # which is free, so nothing waits
        return inside

    def inside(self, compression: str, most: int | None = None) -> Inside | None:
        """Return an `Inside` that takes no place; None if the upload is inspected later.

        :param most: see `Inside`.
        """
        if compression != "none" and (
            not is_supported(compression) or (compression in _DEAR and not self._rules.is_eager)
        ):
            return None
        return Inside(compression, self._rules.max_ratio, most)

    async def apart(self, look: Callable[[], R]) -> R:
        """Inspect a file in memory in a thread, by `look`, once a place is free; return its result.

        If the caller is cancelled, the thread continues, and keeps its place until it ends. Raises
        Busy if too many files wait, or this one has waited for `DEADLINE_S`, and the errors of
        `look`.
        """
        looking = self._looks.join(next(self._numbers), partial(self._look_in_turn, look))
        return cast("R", await looking)

    async def _look_in_turn(self, look: Callable[[], R]) -> R:
        async with self._small_places:
            return await self._threads.run(look)

    def end(self, inside: Inside) -> None:
        """Free the place of an `Inside`; once."""
        if inside.compression != "none":
            self._places.release()

    def stored(self, nar: NarRecord, build_ids: Sequence[str]) -> None:
        """Remember a NAR that was stored, or start its inspection.

        :param build_ids: of its files with symbols, if it was inspected while it arrived.
        """
        if nar.verified_at is None:
            self._look_later(nar)
            return
        self._unclaimed.put(nar.key, nar)
        if build_ids:
            self._symbols.put(nar.key, build_ids)

    def unclaimed(self, key: NarKey) -> NarRecord | None:
        """Return the row of a NAR that this process has stored and inspected, and forget it.

        The row may have changed since then: the caller reads it again under the lease of the NAR.
        """
        nar = self._unclaimed.get(key)
        self._unclaimed.forget(key)
        return nar

    def claimed(self, key: NarKey) -> None:
        """Call `found` with the build IDs in a NAR, now that a narinfo names it.

        Without a narinfo, a client that may write some paths could add symbols for any program.
        """
        build_ids = self._symbols.get(key)
        if build_ids:
            self._symbols.forget(key)
            self.found(key, build_ids)

    def _look_later(self, nar: NarRecord) -> None:
        """Inspect a stored NAR in the background, so that its narinfo need not wait."""
        if is_supported(nar.compression):
            self._tasks.start(f"look into {nar.key.file_name}", self._look(nar))

    async def _look(self, nar: NarRecord) -> None:
        try:
            await self._joined(nar, nar.compression, None)
        except NcpsError as error:  # its narinfo starts it again
            self._log.debug(
                "{key} was not looked into: {reason}", key=nar.key.file_name, reason=str(error)
            )

    async def facts(self, nar: NarRecord, narinfo: NarInfo) -> NarRecord:
        """Return the row of a stored NAR with the facts of the NAR inside.

        Raises Malformed if there is no NAR of this size inside, Unavailable if the inspection
        takes longer than `DEADLINE_S`.
        """
        is_known = nar.verified_at is not None and nar.nar_hash is not None
        if is_known and nar.compression == narinfo.compression:
            return nar
        if not is_supported(narinfo.compression):
            raise Malformed(
                f"ncps cannot decompress {narinfo.compression}, so it could not verify the NAR: use"
                " none, zstd or xz"
            )
        late = f"looking into the NAR takes more than {DEADLINE_S:g} s; it goes on: come again"
        looking = self._joined(nar, narinfo.compression, narinfo.nar_size)
        return await within(self._clock, DEADLINE_S, looking, late)

    async def _joined(self, nar: NarRecord, compression: str, size: int | None) -> NarRecord:
        job = partial(self._inspect, nar, compression, size)
        return await self._flights.join((nar.key, compression, size), job)

    async def _inspect(self, nar: NarRecord, compression: str, size: int | None) -> NarRecord:
        ratio = Ratio(self._rules.max_ratio) if size is None else None
        digest = NarDigest(compression, max_size=size, ratio=ratio, listing=True)
        nar_hash, nar_size = await self._read_in_turn(nar, digest)
        record = evolve(
            nar,
            compression=compression,
            encoding=compression,
            nar_hash=nar_hash,
            nar_size=nar_size,
            verified_at=utc_now(self._clock),
        )
        if not await self._catalog.mark_verified(record):
            raise Unavailable("the NAR was stored anew meanwhile: send the narinfo again")
        build_ids = await self._threads.run(_symbols_of, digest)
        if build_ids:
            self._symbols.put(nar.key, build_ids)
        return record

    async def prove(self, nar: NarRecord, narinfo: NarInfo, address: ContentAddress) -> None:
        """Check that a stored NAR has the contents that a content address names.

        Raises Malformed if it has others, Unavailable if it cannot be read in time.
        """
        check = ContentCheck(address, narinfo.store_path, narinfo.references)
        digest = NarDigest(nar.compression, max_size=nar.nar_size, follow=check.feed)
        late = f"comparing the NAR with its CA takes more than {DEADLINE_S:g} s"
        await within(self._clock, DEADLINE_S, self._read_in_turn(nar, digest), late)
        await self._judge(nar, check.finish)

    async def _read_in_turn(self, nar: NarRecord, digest: NarDigest) -> tuple[Hash, int]:
        async with self._places:
            return await self._read(nar, digest)

    async def _read(self, nar: NarRecord, digest: NarDigest) -> tuple[Hash, int]:
        """Feed a stored file to a digest; return hash and size of the NAR.

        Raises Malformed if the file is wrong, Unavailable if it cannot be read.
        """
        try:
            body = await open_stored(self._store, self._threads, nar, 0)
            try:
                async for chunk in body:
                    await self._judge(nar, digest.feed, chunk)
            finally:
                body.close()
        except (NotFound, Corrupt) as error:
            raise Unavailable(f"the stored NAR cannot be read: {error}") from error
        return await self._judge(nar, digest.finish)

    async def _judge(
        self, nar: NarRecord, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        try:
            return await self._threads.run(step, *args, **kwargs)
        except Corrupt as error:
            raise Malformed(f"{nar.key.url} is not such a NAR: {error}") from error
