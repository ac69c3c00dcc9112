"""Publication: what a download brought is stored, bytes first, then the row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve
from twisted.logger import Logger

from ncps.aio.clocks import utc_now
from ncps.cache.nar.admission import Admission
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.download import Download
from ncps.cache.nar.judge import Arrived, Verdict
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import Conflict, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord


class Publication:
    """Publishes downloads, and says how each has ended."""

    _log = Logger()

    def __init__(
        self, world: World, narinfos: NarInfos, adoption: Adoption, admission: Admission
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._store = world.nars
        self._narinfos = narinfos
        self._adoption = adoption
        self._admission = admission
        self._ended = world.events.ended

    async def publish(
        self,
        download: Download,
        nar: NarRecord | None,
        arrived: Arrived,
        fence: int,
        release: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Store what arrived. What cannot be kept was served anyway.

        :param fence: of the lease; a successor's row is left alone.
        :param release: gives the lease back, for the case that the bytes are to be taken over.
        """
        key, spool, verdict = download.key, arrived.spool, arrived.verdict
        refusal = self._admission.too_large(verdict.size) if spool.is_kept else spool.keep_error
        if refusal:
            self._unkept(key, refusal)
            return
        record = self._record(download, nar, verdict)
        try:
            stat = await self._store.publish(key, spool.spooled(verdict.sha256))
            record = evolve(record, stored_tag=stat.tag)
            await self._catalog.mark_stored(record, fence)
            await self._narinfos.published(record)
        except Conflict as error:
            self._log.warn("{key}: {reason}", key=key.file_name, reason=str(error))
            self._narinfos.changed(key)
            if await self._has_successor(key):
                self._ended("relayed")
            else:
                await self._take_over(key, nar, release)
            return
        except (StorageFull, Unavailable) as error:
            self._unkept(key, str(error))
            return
        self._ended("published")
        self._log.info(
            "stored {key} ({size} bytes) from {upstream}",
            key=key.file_name,
            size=verdict.size,
            upstream=download.upstream,
        )

    async def _take_over(
        self, key: NarKey, nar: NarRecord | None, release: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Have bytes found that are stored though their row is that of a later lease.

        That row says that nothing is stored: the clock by which its lease was numbered was wrong.
        """
        if release is not None:
            await release()
        try:
            adopted = await self._adoption.adopt(key, nar)
        except Unavailable as error:
            self._unkept(key, str(error))
            return
        if adopted is None:
            self._unkept(key, "somebody else is at it")
            return
        self._ended("published")
        await self._narinfos.published(adopted)

    async def _has_successor(self, key: NarKey) -> bool:
        """Whether somebody else has stored a NAR; so it is taken to be if nobody can tell."""
        try:
            current = await self._catalog.nar(key)
        except Unavailable:
            return True
        return current is not None and current.is_stored

    def _record(self, download: Download, nar: NarRecord | None, verdict: Verdict) -> NarRecord:
        """The row of a stored NAR: what was known of it, and what its bytes are."""
        now = utc_now(self._clock)
        base = nar if nar is not None else NarRecord(key=download.key, compression="")
        if nar is not None and download.origin is not None:
            base = evolve(base, upstream=download.origin[0], origin_url=download.origin[1])
        return evolve(
            base,
            file_size=verdict.size,
            file_hash=verdict.sha256,
            encoding=base.compression,
            stored_size=verdict.size,
            stored_at=now,
            verified_at=now if verdict.nar_verified else None,
            last_used_at=now,
        )

    def _unkept(self, key: NarKey, reason: str) -> None:
        self._log.warn(
            "{key} was passed through but is not kept: {reason}", key=key.file_name, reason=reason
        )
        self._ended("unkept")
