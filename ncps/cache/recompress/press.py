"""Press: reads a NAR, has it transcoded, and puts the new file into the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import evolve

from ncps.aio.clocks import utc_now
from ncps.aio.threads import in_background
from ncps.cache.world import World
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body, Lease, NarRecord, Order, Spooled, Transcoded, Transcoder

FORMAT: Final = "zstd"
ROOMY: Final = 4 << 30
"""Bytes beyond the reserve of the disk that new twins leave free, for what clients ask for."""


class Press:
    """Makes files of twins.

    :param read: opens a whole NAR, and fetches it if it has to.
    :param threads: that compress; at least one, so that their number does not change the bytes.
    :param cpu_share: processors that a file may take for which no client waits; 0: all.
    """

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
        self._workers = world.threads
        self._admission = world.admission
        self._cpu = world.metrics.recompress_cpu
        self._read = read
        self._transcoder = transcoder
        self._threads = threads
        self._cpu_share = cpu_share

    @asynccontextmanager
    async def pressed(
        self, nar: NarRecord, level: int, *, room: int = 0, is_urgent: bool = False
    ) -> AsyncIterator[Transcoded]:
        """Have a NAR transcoded; the file is there until the end of the block.

        Raises Corrupt unless it is the NAR that its row promises, StorageFull or Unavailable if
        that cannot be done now.

        :param room: bytes that the file may take, and that nobody has asked for.
        """
        share = self._admission.begin_upload()
        try:
            if room and not self.has_room(room):
                raise StorageFull(
                    f"{room} bytes would leave less than {ROOMY} bytes beyond"
                    " --cache-storage-min-free, which downloads may need"
                )
            if room and (refusal := share.room(room)):
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
        """Whether there is ample room for so many bytes that nobody has asked for."""
        return self._admission.has_spare(size + ROOMY)

    def too_large(self, size: int) -> str:
        """Say why a file of that size is not kept; empty if it is."""
        return self._admission.too_large(size)

    async def publish(
        self, nar: NarRecord, key: NarKey, made: Transcoded, level: int, lease: Lease
    ) -> NarRecord:
        """Store a new file; return its row. Raises StorageFull or Unavailable if that fails.

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
