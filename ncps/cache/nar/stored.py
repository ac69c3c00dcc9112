"""Stored: finds, opens and publishes the bytes of a NAR in the store.

An opened body has the bytes of the NAR's URL; it decodes them if they are stored otherwise. A
publication stores the bytes first, and writes the row after that (P6).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.aio.beat import Beat
from ncps.aio.clocks import utc_now
from ncps.aio.guess import is_unwanted
from ncps.aio.threads import Threads
from ncps.ask.choose import Upstreams
from ncps.cache.answers import Outcome
from ncps.cache.cluster import FetchLease
from ncps.cache.nar.attempt import Arrived
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.state import Invalidation
from ncps.cache.world import World
from ncps.codec import decoder, is_supported
from ncps.errors import Conflict, Corrupt, Malformed, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import EXTENSIONS, NarKey, conventional_key
from ncps.observe.tracing.spans import span
from ncps.ports import Blocked, Body, NarRecord, NarStore, Reopen, Segment, Stat
from ncps.ports.catalog import NEVER_ASKED_FOR

GATHER_S: Final = 0.02
"""Seconds for which a small NAR waits, after its answer, for another one to be stored with it."""

LONGEST_GATHER_S: Final = 0.3
"""Seconds for which the first of them waits, at most."""

GATHER_BYTES: Final = 8 * 1024 * 1024
"""Bytes of all NARs that wait, at most: they are in memory."""

GATHER_PART: Final = 4
"""A quarter of the downloads that may run may be NARs that wait: each counts for that limit."""

_RECOMPRESSED = ("zstd", "xz")
"""Encodings in which the Go program of the same name keeps an uncompressed NAR."""


def stored_key(nar: NarRecord) -> NarKey:
    """Return the key of the object with a NAR's bytes; trees of the Go program recompress some."""
    if nar.encoding in {"", nar.compression}:
        return nar.key
    return NarKey(nar.key.name, EXTENSIONS.get(nar.encoding, ""))


async def find_object(
    store: NarStore, key: NarKey, nar: NarRecord | None
) -> tuple[Stat, str] | None:
    """Return the object that may have the bytes of a NAR, and their encoding there.

    Returns None if there is none. Raises Unavailable if the store cannot tell.

    :param nar: the known record; None if no narinfo is known.
    """
    candidates = [(key, nar.compression if nar is not None else "")]
    if nar is not None and nar.compression == "none":
        candidates += [(NarKey(key.name, EXTENSIONS[e]), e) for e in _RECOMPRESSED]
    named = _conventional(nar)
    if nar is not None and named is not None and named != key:
        candidates.append((named, nar.compression))
    stat = await store.first_of([candidate for candidate, _ in candidates])
    return None if stat is None else (stat, dict(candidates)[stat.key])


def _conventional(nar: NarRecord | None) -> NarKey | None:
    """Return a narinfo's name for the file; None for a twin: that name is its original's."""
    if nar is None or not nar.origin_url or nar.made_from:
        return None
    try:
        return conventional_key(nar.origin_url)
    except Malformed:
        return None


async def open_stored(
    store: NarStore, workers: Threads, nar: NarRecord, start: int, stop: int | None = None
) -> Body:
    """Open the bytes of the NAR's URL.

    Raises NotFound if they are absent, Corrupt if they are not as recorded, Unavailable if the
    store fails now.
    """
    if stored_key(nar) == nar.key:
        return await store.open(nar.key, start, stop, size=nar.stored_size, tag=nar.stored_tag)
    body = await store.open(stored_key(nar), size=nar.stored_size, tag=nar.stored_tag)
    end = nar.file_size if stop is None else stop
    return DecodedBody(body, workers, nar.encoding, start, end)


async def locate_stored(store: NarStore, nar: NarRecord) -> str | None:
    """Return another URL for the bytes of a NAR; None if clients must get them here.

    Checks that the bytes are there, because nobody can help a client that was sent to lost bytes.
    Raises Unavailable if the store cannot tell.
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
    """A Body that decodes another one and gives a part of the result; closes that one.

    Threads decode. The bytes before `start` must be decoded, too, and in the reactor's thread that
    would keep all other clients waiting.

    :param stop: None for the end.
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
        """Bytes from `start` to `stop`, if known."""
        return None if self._stop is None else self._stop - self._start

    def segment(self) -> Segment | None:
        """Return None, because the decoded bytes are in no file."""
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
    """A NAR that is stored; see `answers.ServedNar`."""

    nar: NarRecord
    upstream: str
    open_body: Callable[[NarRecord, int, int | None], Awaitable[Body]]
    locate: Callable[[NarRecord], Awaitable[str | None]]
    spoil: Callable[[NarRecord, Corrupt], Awaitable[None]]
    reopening: Callable[[NarRecord], Reopen | None] = lambda _: None
    outcome: Outcome = Outcome.HIT

    @property
    def key(self) -> NarKey:
        """The name by which the client asked for the NAR."""
        return self.nar.key

    @property
    def size(self) -> int | None:
        """Bytes of the file behind the URL."""
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

    def reopener(self) -> Reopen | None:
        """See `ServedNar.reopener`."""
        return self.reopening(self.nar)

    async def spoiled(self, error: Corrupt) -> bool:
        """See `ServedNar.spoiled`."""
        await self.spoil(self.nar, error)
        return True

    def close(self) -> None:
        """Do nothing: a stored NAR holds nothing open."""


class Publication:
    """Publishes downloads, and counts how each has ended.

    :param adopt: see `Adoption.adopt`.
    :ivar beat: the intervals at which small NARs are stored together.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        board: Invalidation,
        records: Records,
        adopt: Callable[[NarKey, NarRecord | None], Awaitable[NarRecord | None]],
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.nars
        self._board = board
        self._records = records
        self._admission = world.admission
        self._adopt = adopt
        self._downloads = world.metrics.downloads
        self._unchecked = world.metrics.short_ways("check").inc
        self._stored: Callable[[], object] = lambda: None
        self.beat = Beat(world.clock, GATHER_S, LONGEST_GATHER_S, GATHER_BYTES)

    def watch(self, stored: Callable[[], object]) -> None:
        """Have `stored` called for each NAR that this process has stored."""
        self._stored = stored

    def grown(self) -> None:
        """Note that this process has stored a NAR without `publish`."""
        self._stored()

    async def publish(
        self,
        key: NarKey,
        nar: NarRecord | None,
        arrived: Arrived,
        lease: FetchLease | None,
        *,
        is_awaited: bool = False,
    ) -> None:
        """Store the bytes that arrived. If they cannot be stored, clients still get them.

        :param lease: a row of a later holder of this lease is not overwritten. The lease is
            released before stored bytes are adopted.
        :param is_awaited: whether somebody waits for the end, so that it must come soon.
        """
        spool, verdict = arrived.spool, arrived.verdict
        fence = 0 if lease is None or lease.held is None else lease.held.fence
        refusal = self._admission.too_large(verdict.size) if spool.is_kept else spool.keep_error
        if refusal:
            self.unkept(key, refusal)
            return
        record = self._record(key, nar, arrived)
        try:
            with span("nar.publish", {"ncps.hash": key.file_name, "ncps.bytes": verdict.size}):
                if self._admission.is_small(verdict.size):
                    await self._gather(verdict.size, is_awaited=is_awaited)
                stat = await spool.publish(self._store, key, verdict.sha256)
                record = evolve(record, stored_tag=stat.tag)
                entries = await self._catalog.mark_stored(record, fence)
                await self._records.published(record, entries, verdict.build_ids)
        except Conflict as error:
            self._log.warn("{key}: {reason}", key=key.file_name, reason=str(error))
            self._board.nar_changed(key)
            if await self._has_successor(key):
                self._downloads("relayed").inc()
            else:
                await self._take_over(key, nar, lease)
            return
        except Blocked as error:
            await self._drop_blocked(key, error)
            return
        except (StorageFull, Unavailable) as error:
            self.unkept(key, str(error))
            return
        self._published()
        self._tell(key, arrived)

    def _tell(self, key: NarKey, arrived: Arrived) -> None:
        """Count and log that bytes that arrived are stored."""
        if not arrived.verdict.nar_verified:
            self._unchecked()
        self._log.info(
            "stored {key} ({size} bytes) from {upstream}",
            key=key.file_name,
            size=arrived.verdict.size,
            upstream=arrived.source.name,
        )

    async def _gather(self, size: int, *, is_awaited: bool) -> None:
        """Wait for other small NARs, which are stored together with this one."""
        least = GATHER_BYTES * GATHER_PART // self._admission.most
        await self.beat.wait(max(size, least), is_urgent=is_awaited)

    async def _drop_blocked(self, key: NarKey, error: Blocked) -> None:
        """Remove bytes that were stored while an operator blocked them."""
        self._board.nar_changed(key)
        try:
            await self._store.delete(key)
        except (StorageFull, Unavailable) as trouble:
            self._log.error(
                "{key} is blocked, and its bytes cannot be removed: {reason}",
                key=key.file_name,
                reason=str(trouble),
            )
        self.unkept(key, str(error))

    async def _take_over(
        self, key: NarKey, nar: NarRecord | None, lease: FetchLease | None
    ) -> None:
        """Adopt the stored bytes if a later lease has written a row without bytes.

        This can happen if a clock was wrong when that lease got its number.
        """
        if lease is not None:
            await lease.release()
        try:
            adopted = await self._adopt(key, nar)
        except Unavailable as error:
            self.unkept(key, str(error))
            return
        if adopted is None:
            self.unkept(key, "another process has its lease, or its bytes are not right")
            return
        self._published()
        await self._records.published(adopted)

    async def _has_successor(self, key: NarKey) -> bool:
        """Return whether another process has stored the NAR; True if the catalog cannot tell."""
        try:
            current = await self._catalog.nar(key)
        except Unavailable:
            return True
        return current is not None and current.is_stored

    def _record(self, key: NarKey, nar: NarRecord | None, arrived: Arrived) -> NarRecord:
        """Return the row of a stored NAR: its known facts, and those found in its bytes."""
        now, verdict = utc_now(self._clock), arrived.verdict
        base = nar if nar is not None else NarRecord(key=key, compression="")
        origin = None if nar is None else arrived.source.origin
        upstream, origin_url = origin or (base.upstream, base.origin_url)
        return evolve(
            base,
            upstream=upstream,
            origin_url=origin_url,
            file_size=verdict.size,
            file_hash=verdict.sha256,
            encoding=base.compression,
            stored_size=verdict.size,
            stored_at=now,
            verified_at=now if verdict.nar_verified else None,
            last_used_at=NEVER_ASKED_FOR if is_unwanted() else now,
        )

    def _published(self) -> None:
        self._downloads("published").inc()
        self._stored()

    def unkept(self, key: NarKey, reason: str) -> None:
        """Note that bytes have arrived and are not stored."""
        tell = self._log.debug if is_unwanted() else self._log.warn
        tell("{key} was passed through but is not kept: {reason}", key=key.file_name, reason=reason)
        self._downloads("unkept").inc()


def is_hearsay(nar: NarRecord, upstreams: Upstreams) -> bool:
    """Return whether stored bytes were never verified, and came from an upstream not ours."""
    return nar.verified_at is None and not is_ours(nar, upstreams)


def is_ours(nar: NarRecord, upstreams: Upstreams) -> bool:
    """Return whether a row's facts come from an upstream of ours, or cannot be fetched anew."""
    is_checkable = nar.nar_hash is not None and is_supported(nar.encoding or nar.compression)
    return not (is_checkable and nar.upstream) or nar.upstream in upstreams.names
