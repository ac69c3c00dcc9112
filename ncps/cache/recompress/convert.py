"""Converter: reads a NAR, sends it to the transcoder, and stores the new file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.aio.threads import in_background
from ncps.cache.nar.objects import Objects
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body, Lease, NarRecord, Order, Spooled, Transcoded, Transcoder

FORMAT: Final = "zstd"
ROOMY: Final = 4 << 30
"""Bytes beyond the reserve of the disk that new twins leave free for downloads."""


class Converter:
    """Makes and stores the files of twins.

    :param read: opens a whole NAR, and fetches it if it is not stored.
    :param threads: number of threads that compress, at least 1: the output with threads differs
        from that without, but does not depend on their number.
    :param cpu_share: processors that one file may use if no client waits for it; 0 for no limit.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        *,
        read: Callable[[NarRecord], Awaitable[Body]],
        transcoder: Transcoder,
        threads: int,
        cpu_share: float = 0.0,
    ) -> None:
        self._clock = world.clock
        self._store = world.nars
        self._objects = Objects(world)
        self._workers = world.threads
        self._admission = world.admission
        self._cpu = world.metrics.recompress_cpu
        self._read = read
        self._transcoder = transcoder
        self._threads = threads
        self._cpu_share = cpu_share

    @asynccontextmanager
    async def converted(
        self, nar: NarRecord, level: int, *, room: int, is_urgent: bool = False
    ) -> AsyncIterator[Transcoded]:
        """Transcode a NAR; the block removes the new file at its end unless it was published.

        Raises Corrupt if the NAR does not have the NarHash of its row, StorageFull or Unavailable
        if it cannot be transcoded now.

        :param room: bytes that the new file may have; they are reserved on the disk.
        :param is_urgent: whether a client waits for it.
        """
        share = self._admission.begin_upload()
        try:
            if not is_urgent and not self.has_room(room):
                raise StorageFull(
                    f"{room} bytes would leave less than {ROOMY} bytes beyond"
                    " --cache-storage-min-free, which downloads may need"
                )
            if refusal := share.room(room):
                raise StorageFull(refusal)
            async with self._transcoded(nar, level, is_urgent=is_urgent) as made:
                yield made
        finally:
            share.close()

    @asynccontextmanager
    async def _transcoded(
        self, nar: NarRecord, level: int, *, is_urgent: bool
    ) -> AsyncIterator[Transcoded]:
        order = Order(
            compression=nar.compression,
            nar_size=nar.nar_size or 0,
            level=level,
            threads=self._threads,
            cpu_share=0.0 if is_urgent else self._cpu_share,
            is_urgent=is_urgent,
        )
        body = await self._read(nar)
        try:
            made = await self._transcoder.transcode(body, order)
        finally:
            body.close()
        try:
            self._cpu.inc(made.cpu_s)
            if made.nar_hash != nar.nar_hash:
                raise Corrupt(f"NAR hash {made.nar_hash} instead of {nar.nar_hash}")
            yield made
        finally:

            def drop_blocking() -> None:
                made.file.discard()
                made.file.close()

            in_background(self._workers, drop_blocking)

    def has_room(self, size: int) -> bool:
        """Return whether the disk has room for `size` bytes that no client has asked for."""
        return self._admission.has_spare(size + ROOMY)

    def too_large(self, size: int) -> str:
        """Return why the store refuses a file of that size; empty if it does not."""
        return self._admission.too_large(size)

    async def publish(
        self, nar: NarRecord, key: NarKey, made: Transcoded, level: int, lease: Lease
    ) -> NarRecord:
        """Store a new file and return its row. Raises StorageFull or Unavailable if that fails.

        :param nar: the original.
        """
        if refusal := self.too_large(made.file_size):
            raise StorageFull(refusal)
        if lease.is_lost:
            raise Unavailable(f"the lease of {key.file_name} is lost")
        file = Spooled(path=made.file.path, size=made.file_size, sha256=made.file_hash)
        stat = await self._store.publish(key, file)
        now = utc_now(self._clock)
        return evolve(
            nar,
            key=key,
            compression=FORMAT,
            encoding=FORMAT,
            file_size=made.file_size,
            file_hash=made.file_hash,
            stored_size=made.file_size,
            stored_tag=stat.tag,
            stored_at=now,
            verified_at=now,
            last_used_at=None,
            made_from=nar.key.file_name,
            made_level=level,
            recompressed_at=None,
        )

    async def withdraw(self, key: NarKey, lease: Lease) -> None:
        """Remove a published file that got no row. Raises nothing: a sweep removes it otherwise."""
        try:
            if not lease.is_lost and not await self._objects.is_owned(key):
                await self._store.delete(key)
        except NcpsError as error:
            self._log.warn(
                "{key} has no record, and cannot be removed now: {reason}",
                key=key.file_name,
                reason=str(error),
            )
