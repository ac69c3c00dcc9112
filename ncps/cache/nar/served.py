"""The two kinds of NAR that are served: one stored, one arriving. See `answers.ServedNar`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

from attrs import field, frozen

from ncps.aio.threads import Threads
from ncps.cache.answers import NO_TIMINGS, Outcome
from ncps.cache.nar.download import Download
from ncps.codec import decoder
from ncps.errors import Corrupt, NotFound
from ncps.nix.narurl import EXTENSIONS, NarKey
from ncps.ports import Body, NarRecord, NarStore, Segment


def stored_key(nar: NarRecord) -> NarKey:
    """Key of the object that holds a NAR's bytes; another one in trees that recompressed."""
    if nar.encoding in {"", nar.compression}:
        return nar.key
    return NarKey(nar.key.name, EXTENSIONS.get(nar.encoding, ""))


async def open_stored(
    store: NarStore, workers: Threads, nar: NarRecord, start: int, stop: int | None = None
) -> Body:
    """Open the bytes the URL stands for. NotFound, Corrupt, Unavailable."""
    if stored_key(nar) == nar.key:
        return await store.open(nar.key, start, stop, size=nar.stored_size, tag=nar.stored_tag)
    body = await store.open(stored_key(nar), size=nar.stored_size, tag=nar.stored_tag)
    end = nar.file_size if stop is None else stop
    return DecodedBody(body, workers, nar.encoding, start, end)


async def locate_stored(store: NarStore, nar: NarRecord) -> str | None:
    """A URL for the bytes the URL of ours stands for; None: they are to be had here. Unavailable.

    Looks whether they are there, since whoever is sent away to bytes that are lost cannot be
    helped any more.
    """
    if nar.stored_size is None or stored_key(nar) != nar.key:
        return None
    location = await store.location(nar.key, size=nar.stored_size)
    if location is not None:
        try:
            opened = await store.open(nar.key, 0, 0, size=nar.stored_size, tag=nar.stored_tag)
            opened.close()
        except (NotFound, Corrupt):
            return None
    return location


def _next_blocking(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")


class DecodedBody:
    """A Body that undoes the encoding of another one and gives a part of what comes out.

    The work is done in threads: what lies before `start` has to be undone, too, and on the
    reactor's thread nothing else would be served meanwhile.

    :param stop: None: the end, wherever that is.
    """

    def __init__(
        self, body: Body, workers: Threads, encoding: str, start: int, stop: int | None
    ) -> None:
        self._body = body
        self._workers = workers
        self._encoding = encoding
        self._start = start
        self._stop = stop

    @property
    def size(self) -> int | None:
        """Bytes in all, if known."""
        return None if self._stop is None else self._stop - self._start

    def segment(self) -> Segment | None:
        """None: the bytes lie nowhere as they are."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        codec = decoder(self._encoding)
        position = 0
        async for chunk in self._body:
            pieces = codec.feed(chunk)
            while piece := await self._workers.run(_next_blocking, pieces):
                first = max(0, self._start - position)
                last = len(piece) if self._stop is None else max(0, self._stop - position)
                position += len(piece)
                if part := piece[first:last]:
                    yield part
                if self._stop is not None and position > self._stop:
                    return
        codec.finish()
        if self._stop is not None and position < self._stop:
            raise Corrupt(f"{position} bytes are encoded instead of {self._stop}")

    def close(self) -> None:
        """Close the inner Body."""
        self._body.close()


@frozen(kw_only=True)
class StoredNar:
    """A NAR whose bytes are published."""

    nar: NarRecord
    upstream: str
    open_body: Callable[[NarRecord, int, int | None], Awaitable[Body]]
    locate: Callable[[NarRecord], Awaitable[str | None]]
    spoil: Callable[[NarRecord, Corrupt], Awaitable[None]]
    outcome: Outcome = Outcome.HIT
    timings: Mapping[str, float] = field(default=NO_TIMINGS)

    @property
    def key(self) -> NarKey:
        """The name it was asked by."""
        return self.nar.key

    @property
    def size(self) -> int | None:
        """Bytes behind the URL."""
        return self.nar.file_size

    async def known_size(self) -> int:
        """Return the size; a stored NAR has one."""
        assert self.nar.file_size is not None
        return self.nar.file_size

    final_size = known_size

    async def location(self) -> str | None:
        """See `ServedNar.location`."""
        return await self.locate(self.nar)

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """See `ServedNar.body`."""
        return await self.open_body(self.nar, start, stop)

    async def spoiled(self, error: Corrupt) -> bool:
        """See `ServedNar.spoiled`."""
        await self.spoil(self.nar, error)
        return True

    def close(self) -> None:
        """Nothing is held."""


@frozen(kw_only=True)
class FollowedNar:
    """A NAR on its way."""

    download: Download
    outcome: Outcome
    open_body: Callable[[NarKey, Download, int, int | None], Awaitable[Body]]
    timings: Mapping[str, float] = field(default=NO_TIMINGS)

    @property
    def key(self) -> NarKey:
        """The name it was asked by."""
        return self.download.key

    @property
    def file(self) -> str:
        """Names the file; see `sources.Source`."""
        return self.download.file

    @property
    def upstream(self) -> str:
        """Name of the upstream that sends it."""
        return self.download.upstream

    @property
    def size(self) -> int | None:
        """Bytes behind the URL, if known by now."""
        return self.download.size

    async def known_size(self) -> int:
        """Wait for the size: at once, or with the end of the download."""
        size = self.download.size
        return await self.download.arrived.wait() if size is None else size

    async def final_size(self) -> int:
        """Wait for the size that the bytes have, or that is signed."""
        size = self.download.sure_size
        return await self.download.arrived.wait() if size is None else size

    async def location(self) -> str | None:
        """See `ServedNar.location`: it lies nowhere yet."""
        return None

    async def body(self, start: int = 0, stop: int | None = None) -> Body:
        """See `ServedNar.body`."""
        return await self.open_body(self.key, self.download, start, stop)

    async def spoiled(self, error: Corrupt) -> bool:
        """See `ServedNar.spoiled`: the download has its own judge."""
        return False

    def close(self) -> None:
        """The download goes on without its readers."""
