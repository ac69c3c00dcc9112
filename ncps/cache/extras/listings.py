"""Listings: the files of a store path, read out of its NAR if that is stored.

This cache makes a listing from a NAR with the right NarHash, and keeps it under that hash. It
passes on an upstream's listing and does not keep it, because nothing vouches for it. It does not
keep a client's listing either, because it makes its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.single_flight import SingleFlight
from ncps.aio.waiting import within
from ncps.cache.answers import Cache, Outcome
from ncps.cache.extras.answers import ServedExtra
from ncps.cache.extras.kept import KeptExtras, held
from ncps.cache.extras.searching import ExtraSearch
from ncps.cache.extras.unpacking import Unpacking
from ncps.cache.world import World
from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, Unavailable
from ncps.nix.debuginfo import DebugFiles
from ncps.nix.hashes import Hash
from ncps.nix.listing import ListingWriter, Several, TooLong, check_listing
from ncps.nix.nar import NarParser
from ncps.nix.narurl import COMPRESSIONS, NarKey
from ncps.nix.storepath import is_digest
from ncps.ports import NarRecord, Upstream

AT_ONCE: Final = 1
"""NARs that are read for their listings at the same time: one reading keeps a CPU core busy."""

QUEUE: Final = 100
"""NARs that wait to be read, at most."""

PATIENCE_S: Final = 45.0
"""Seconds that a client waits for a listing. The work goes on after that; its result is kept."""

Found = Callable[[NarKey, list[str]], Awaitable[None]]


class Listings:
    """Serves listings.

    :param found: awaited with the build IDs of the files with symbols in a NAR that was read.
    """

    _log = Logger()

    def __init__(
        self, world: World, cache: Cache, kept: KeptExtras, search: ExtraSearch, found: Found
    ) -> None:
        self._clock = world.clock
        self._tasks = world.tasks
        self._threads = world.threads
        self._catalog = world.catalog
        self._cache = cache
        self._kept = kept
        self._search = search
        self._found = found
        self._flights: SingleFlight[str, bytes] = SingleFlight(world.tasks, "listing of NAR")
        self._wishes: dict[str, int] = {}
        self._places = Bulkhead(
            world.clock, "listings", size=AT_ONCE, queue=QUEUE, patience_s=PATIENCE_S
        )

    async def get(self, digest: str, *, is_local: bool) -> ServedExtra:
        """See `Extras.listing`."""
        path, nar = await self._nar_of(digest, is_local=is_local)
        return evolve(await self._of(digest, nar, is_local=is_local), path=path)

    async def _of(self, digest: str, nar: NarRecord, *, is_local: bool) -> ServedExtra:
        name = "" if nar.nar_hash is None else nar.nar_hash.nix32
        if name:
            found = await self._kept.open("listing", name)
            if found is not None:
                return found
        if name and nar.is_stored and is_supported(compression_of(nar)):
            return await self._made(name, nar)
        if is_local:
            raise NotFound(f"the NAR of {digest} is not here, or cannot be decompressed")
        path = f"{digest}.ls"
        text, upstream, outcome = await self._search.first(path, partial(self._ask, path=path))
        return held(text, outcome, upstream)

    async def _nar_of(self, digest: str, *, is_local: bool) -> tuple[str, NarRecord]:
        """Return the base name and the NAR of a store path.

        Raises NotFound if none is known, else as `Cache.narinfo`.
        """
        if not is_digest(digest):
            raise Malformed(f"not the hash part of a store path: {digest[:64]!r}")
        if is_local:
            row = await self._catalog.narinfo(digest)
            if row is not None:
                return row[0].narinfo.store_path.base, row[1]
        else:
            served = await self._cache.narinfo(digest)
            if served.nar is not None:
                return _base_of(served.text), served.nar
        raise NotFound(f"no NAR of {digest} is known")

    async def _ask(self, upstream: Upstream, path: str) -> bytes:
        text = await self._search.text(upstream, path)
        try:
            check_listing(text)
        except Malformed as error:
            raise Corrupt(str(error), kind="malformed") from error
        return text

    # Made here

    async def _made(self, name: str, nar: NarRecord) -> ServedExtra:
        if name in self._search.negatives:
            raise TooLong(self._kept.bounds.object_size)
        text = await self._wait(name, nar)
        found = await self._kept.open("listing", name)
        if found is None:
            return held(text, Outcome.MISS)
        return evolve(found, outcome=Outcome.MISS)

    async def _wait(self, name: str, nar: NarRecord) -> bytes:
        """Wait for a listing, which is made once for all clients.

        The work ends when the last client disconnects. It goes on after a client's time-out,
        because such a client comes again.
        """
        making = self._flights.join(name, partial(self._make, name, nar))
        late = f"the listing of {nar.key.file_name} is not ready yet"
        with self._wish(name):
            try:
                return await within(self._clock, PATIENCE_S, making, late)
            except CancelledError:
                if self._wishes[name] == 1:
                    self._flights.cancel(name)
                raise
            except Unavailable as error:
                if error.timed_out and name in self._flights:
                    self._wishes[name] += 1  # until it is made
                raise

    @contextmanager
    def _wish(self, name: str) -> Iterator[None]:
        """Count a caller that wants a listing, until the end of the block or of the work."""
        self._wishes[name] = self._wishes.get(name, 0) + 1
        try:
            yield
        finally:
            left = self._wishes.get(name, 0) - 1
            if left > 0:
                self._wishes[name] = left
            else:
                self._wishes.pop(name, None)

    def look_into(self, nar: NarRecord) -> None:
        """Make the listing of a NAR in the background, to find the files with symbols in it."""
        if nar.nar_hash is not None and is_supported(compression_of(nar)):
            name = nar.nar_hash.nix32
            self._tasks.start(f"a look into {nar.key.file_name}", self._look(name, nar))

    async def _look(self, name: str, nar: NarRecord) -> None:
        try:
            with self._wish(name):
                await self._flights.join(name, partial(self._make, name, nar))
        except NcpsError as error:
            self._log.warn(
                "{key} was not searched for debug information: {reason}",
                key=nar.key.file_name,
                reason=str(error),
            )

    async def _make(self, name: str, nar: NarRecord) -> bytes:
        try:
            return await self._make_now(name, nar)
        finally:
            self._wishes.pop(name, None)

    async def _make_now(self, name: str, nar: NarRecord) -> bytes:
        reader = _Reader(self._kept.bounds.object_size)
        async with self._places:
            try:
                await self._read(nar, reader)
            except TooLong:
                self._search.negatives.add(name)
                raise
            except TooDear as error:
                raise NotFound(str(error), is_certain=False) from error
            text, nar_hash, build_ids = await self._threads.run(reader.finish)
            if nar_hash != nar.nar_hash:
                raise Corrupt(
                    f"{nar.key.file_name} has the NAR hash {nar_hash}, and its narinfo says"
                    f" {nar.nar_hash}"
                )
            await self._kept.keep("listing", name, text)
            if build_ids:
                await self._found(nar.key, build_ids)
        return text

    async def _read(self, nar: NarRecord, reader: _Reader) -> None:
        opened = await self._cache.nar(nar.key)
        try:
            unpacking = Unpacking(
                await opened.body(),
                self._threads,
                compression_of(nar),
                reader.feed,
                max_size=nar.nar_size,
                ratio=Ratio(USUAL),
            )
            try:
                async for _ in unpacking:
                    pass  # the reader gives no bytes
            finally:
                unpacking.close()
        finally:
            opened.close()


class _Reader:
    """Reads a NAR once for its hash, its listing and its files with symbols."""

    def __init__(self, max_size: int) -> None:
        self._hash = hashlib.sha256()
        self._writer = ListingWriter(max_size)
        self._files = DebugFiles()
        self._parser = NarParser(Several(self._writer, self._files))

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._hash.update(piece)
        self._parser.feed(piece)
        return iter(())

    def finish(self) -> tuple[bytes, Hash, list[str]]:
        self._parser.end()
        nar_hash = Hash.of_sha256(self._hash.digest())
        return self._writer.text(), nar_hash, self._files.build_ids


def _base_of(text: bytes) -> str:
    """Return the base name of the store path in a narinfo of ours."""
    line = text.partition(b"StorePath: ")[2].partition(b"\n")[0]
    return line.rpartition(b"/")[2].decode("ascii")


def compression_of(nar: NarRecord) -> str:
    """Return the compression of the file behind the URL of a NAR."""
    return nar.compression or COMPRESSIONS[nar.key.extension]
