"""Debug information: links to the NARs with the symbols of programs, and these symbols.

A link comes from a client or an upstream, or this cache made it when it read the NAR. No key signs
a link. A client gets it only if this cache can serve the NAR under the name in the link.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import frozen
from twisted.logger import Logger

from ncps.aio.body import PassedBody
from ncps.aio.bulkhead import Bulkhead
from ncps.cache.answers import Cache, Outcome, ServedNar
from ncps.cache.extras.answers import ServedExtra
from ncps.cache.extras.kept import KeptExtras, held
from ncps.cache.extras.listings import compression_of
from ncps.cache.extras.searching import ExtraSearch
from ncps.cache.extras.unpacking import Unpacking
from ncps.cache.world import World
from ncps.codec import is_supported
from ncps.codec.ratio import USUAL, Ratio
from ncps.codec.stream import TooDear
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, Unusable
from ncps.nix.debuginfo import MAX_SIZE, DebugLink, MemberReader, member_of
from ncps.nix.narurl import COMPRESSIONS, NarKey, conventional_key
from ncps.ports import ExtraKey, Upstream

AT_ONCE: Final = 8
"""Files that are read out of NARs at the same time. Each needs the memory of a decoder."""

QUEUE: Final = 100
"""Requests that wait for a place, at most."""

PATIENCE_S: Final = 30.0
"""Seconds for which each request waits, at most."""

KEEP_S: Final = 600.0
"""Seconds for which the links to an uploaded NAR may wait to be kept, at most."""


@frozen(kw_only=True)
class Link:
    """A link whose NAR this cache can serve."""

    member: str
    key: NarKey
    outcome: Outcome
    upstream: str = ""

    def render(self) -> bytes:
        """Return the link as the text that clients get."""
        return _link(self.key, self.member)


class DebugLinks:
    """Finds links."""

    _log = Logger()

    def __init__(self, world: World, cache: Cache, kept: KeptExtras, search: ExtraSearch) -> None:
        self._catalog = world.catalog
        self._cache = cache
        self._kept = kept
        self._search = search
        self._tasks = world.tasks
        self._places = Bulkhead(
            world.clock, "links to symbols", size=1, queue=QUEUE, patience_s=KEEP_S
        )

    async def get(self, build_id: str, *, is_local: bool) -> ServedExtra:
        """See `Extras.debug_link`."""
        link = await self.find(build_id, is_local=is_local)
        return held(link.render(), link.outcome, link.upstream)

    async def find(self, build_id: str, *, is_local: bool = False) -> Link:
        """Return the link of a build ID; raises as `Extras.debug_link`."""
        for is_uploaded in (True, False):
            key = ExtraKey("debuginfo", build_id, is_uploaded)
            found = await self._kept_link(key, is_local=is_local)
            if found is not None:
                return found
        if is_local:
            raise NotFound(f"no debug information of {build_id} is known here")
        path = f"debuginfo/{build_id}"
        (nar, member), upstream, outcome = await self._search.first(
            path, partial(self._ask, path=path)
        )
        if not await self._can_serve(nar, is_local=False):
            raise NotFound(f"no upstream has {nar.file_name}, which {path} names", is_certain=False)
        await self._kept.keep("debuginfo", build_id, _link(nar, member))
        return Link(member=member, key=nar, outcome=outcome, upstream=upstream)

    async def _kept_link(self, key: ExtraKey, *, is_local: bool) -> Link | None:
        """Return a link of the store if its NAR can be served; if not, drop a fetched link."""
        text = await self._kept.read(key)
        if text is None:
            return None
        with suppress(Malformed):
            nar, member = _parsed(text)
            if await self._can_serve(nar, is_local=is_local):
                return Link(member=member, key=nar, outcome=Outcome.HIT)
        if not (key.is_uploaded or is_local):
            await self._kept.drop(key)
        return None

    async def _ask(self, upstream: Upstream, path: str) -> tuple[NarKey, str]:
        """Ask an upstream for a link, under the name that Hydra uses, then under Nix's name."""
        try:
            text = await upstream.text(path, MAX_SIZE)
        except NotFound:
            text = await upstream.text(f"{path}.debug", MAX_SIZE)
        try:
            return _parsed(text)
        except Malformed as error:
            raise Unusable(str(error), kind="malformed") from error

    async def _can_serve(self, key: NarKey, *, is_local: bool) -> bool:
        """Return whether this cache has or can fetch a NAR. Raises Unavailable if unknown."""
        if await self._is_stored(key):
            return True
        if is_local:
            return False
        try:
            await self._cache.stat_nar(key)
        except (NotFound, Corrupt):
            return False
        return True

    async def _is_stored(self, key: NarKey) -> bool:
        """Return whether a NAR is stored, under this name or under another one."""
        nar = await self._catalog.nar(key)
        if nar is None or not nar.is_stored:
            with suppress(Malformed):
                nar = await self._catalog.stored_file(key.as_hash(), key.extension)
        return nar is not None and nar.is_stored

    async def add(self, build_id: str, text: bytes) -> bool:
        """See `Extras.add_debug_link`. Replaces a link whose NAR is not stored."""
        key = ExtraKey("debuginfo", build_id, is_uploaded=True)
        data = _link(*_parsed(text))
        there = await self._kept.read(key)
        if there is not None and await self._kept_link(key, is_local=True) is not None:
            there = None
        return await self._kept.add("debuginfo", key.name, data, replaces=there or b"")

    def found_early(self, key: NarKey, build_ids: Sequence[str]) -> None:
        """Start a background task that keeps the links to files with symbols."""
        if build_ids:
            self._tasks.start(f"links to symbols in {key.file_name}", self._keep(key, build_ids))

    async def _keep(self, key: NarKey, build_ids: Sequence[str]) -> None:
        try:
            async with self._places:
                await self.found(key, build_ids)
        except NcpsError as error:
            self._log.warn(
                "{key} has debug information, and not all links to it are kept: {reason}",
                key=key.file_name,
                reason=str(error),
            )

    async def found(self, key: NarKey, build_ids: Sequence[str]) -> None:
        """Keep the links to the files with symbols in a NAR that was read."""
        for build_id in build_ids:
            await self._kept.keep("debuginfo", build_id, _link(key, member_of(build_id)))


def _link(key: NarKey, member: str) -> bytes:
    return DebugLink(f"../{key.url}", member).render()


def _parsed(text: bytes) -> tuple[NarKey, str]:
    """Parse a link. Raises Malformed if it is none, or names its NAR by something but a hash."""
    link = DebugLink.parse(text)
    key = conventional_key(link.archive)
    if key is None:
        raise Malformed("a link to debug information names a NAR that has no hash in its name")
    return key, link.member


class Symbols:
    """Reads files with symbols out of their NARs."""

    def __init__(self, world: World, cache: Cache, links: DebugLinks) -> None:
        self._catalog = world.catalog
        self._threads = world.threads
        self._cache = cache
        self._links = links
        self._places = Bulkhead(
            world.clock,
            "files that are taken out of NARs",
            size=AT_ONCE,
            queue=QUEUE,
            patience_s=PATIENCE_S,
        )

    async def open(self, build_id: str) -> ServedExtra:
        """See `Extras.symbols`."""
        link = await self._links.find(build_id)
        await self._places.acquire()
        try:
            nar = await self._cache.nar(link.key)
            try:
                return await self._member(nar, link)
            except BaseException:
                nar.close()
                raise
        except BaseException:
            self._places.release()
            raise

    async def _member(self, nar: ServedNar, link: Link) -> ServedExtra:
        record = await self._catalog.nar(link.key)
        known = COMPRESSIONS[link.key.extension] if record is None else compression_of(record)
        if not is_supported(known):
            raise NotFound(f"{link.key.file_name} cannot be decompressed here", is_certain=False)
        reader = MemberReader(link.member)
        unpacking = Unpacking(
            await nar.body(),
            self._threads,
            known,
            reader.feed,
            max_size=None if record is None else record.nar_size,
            ratio=Ratio(USUAL),
        )

        def close() -> None:
            unpacking.close()
            nar.close()
            self._places.release()

        chunks = aiter(unpacking)
        try:
            first = await _next(chunks)
            if not first:
                reader.finish()
            assert reader.size is not None
        except TooDear as error:
            unpacking.close()
            raise NotFound(str(error), is_certain=False) from error
        except BaseException:
            unpacking.close()
            raise
        body = PassedBody(_bytes(first, chunks, reader), close, total=reader.size)
        return ServedExtra(body=body, size=reader.size, outcome=nar.outcome, upstream=nar.upstream)


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the next bytes; none at the end. Twisted cannot await `anext` with a default."""
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return b""


async def _bytes(
    first: bytes, chunks: AsyncIterator[bytes], reader: MemberReader
) -> AsyncIterator[bytes]:
    """Yield the bytes of a file; do not read the rest of its NAR."""
    if first:
        yield first
    while not reader.is_done:
        chunk = await _next(chunks)
        if not chunk:
            raise Corrupt("the NAR has ended within a file")
        yield chunk
