"""NARs: open a stored one or join its download; publish what arrived; heal what was lost."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.cache.adopt import Adoption
from ncps.cache.choose import Upstreams
from ncps.cache.download import Arrived, Download
from ncps.cache.narinfos import NarInfos
from ncps.cache.negatives import Negatives
from ncps.cache.served import ArrivingNar, StoredNar, open_stored
from ncps.cache.sources import Sources
from ncps.cache.uses import Uses, utc_now
from ncps.cache.verbs import Absent, Outcome, ServedNar
from ncps.errors import Corrupt, NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body, Catalog, Leases, NarRecord, NarStore
from ncps.spool import Digest, Overtaken, Spool
from ncps.tasks import Tasks


class _AlreadyStored(Unavailable):
    """While the lease was waited for, somebody else stored the NAR."""


class Nars:
    """See the module.

    :param new_spool: makes a spool for a file of this size (None: unknown) and these digests.
    :param patience_s: see `Download`.
    :param ended: told how each download ended: "published", "unkept", "failed" or "cancelled".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        tasks: Tasks,
        catalog: Catalog,
        store: NarStore,
        leases: Leases,
        upstreams: Upstreams,
        narinfos: NarInfos,
        adoption: Adoption,
        negatives: Negatives,
        uses: Uses,
        new_spool: Callable[[int | None, tuple[Digest, ...]], Spool],
        patience_s: float,
        ended: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._catalog = catalog
        self._store = store
        self._leases = leases
        self._upstreams = upstreams
        self._narinfos = narinfos
        self._adoption = adoption
        self._negatives = negatives
        self._uses = uses
        self._new_spool = new_spool
        self._patience_s = patience_s
        self._ended = ended
        self._downloads: dict[NarKey, Download] = {}

    @property
    def arriving(self) -> int:
        """How many downloads are under way."""
        return len(self._downloads)

    def is_arriving(self, key: NarKey) -> bool:
        """Whether a NAR is being downloaded."""
        return key in self._downloads

    async def open(self, key: NarKey) -> ServedNar:
        """Return a NAR to serve. NotFound, Unavailable, Corrupt."""
        self._uses.nar(key)
        nar = await self._find(key)
        if nar is not None and nar.is_stored:
            return StoredNar(
                nar=nar, upstream=self._upstreams.name_of(nar.upstream), open_body=self._open_stored
            )
        outcome = Outcome.COALESCED if key in self._downloads else Outcome.MISS
        download = self._download(key, nar)
        try:
            await download.opened()
        except _AlreadyStored:
            return await self.open(key)
        return ArrivingNar(download=download, outcome=outcome, open_body=self._follow)

    async def stat(self, key: NarKey) -> tuple[int | None, Outcome]:
        """Say whether `open` would succeed, and the size if it is known. Errors as for `open`."""
        nar = await self._find(key)
        if nar is not None and nar.is_stored:
            body = await self._open_stored(nar, 0, None)
            body.close()
            return nar.file_size, Outcome.HIT
        download = self._downloads.get(key)
        if download is not None:
            await download.opened()
            return download.size, Outcome.COALESCED
        size: int | None = None
        sources = self._sources(key, nar)
        found = await sources.stat()
        size = found if nar is None or nar.file_size is None else nar.file_size
        return size, Outcome.MISS

    async def _find(self, key: NarKey) -> NarRecord | None:
        """Return what is known of a NAR; bytes without a row are taken over first."""
        if key in self._downloads:
            return None
        nar = await self._catalog.nar(key) or self._narinfos.unrecorded(key)
        if nar is not None and nar.is_stored:
            return nar
        if nar is None and key in self._negatives:
            raise Absent(f"no upstream has {key.file_name}", outcome=Outcome.NEGATIVE)
        adopted = await self._adoption.adopt(key, nar)
        if adopted is not None:
            await self._narinfos.published(adopted)
            return adopted
        return nar

    # Stored bytes

    async def _open_stored(self, nar: NarRecord, start: int, stop: int | None) -> Body:
        """Open stored bytes; if they turn out lost or damaged, heal and fetch them again."""
        try:
            return await open_stored(self._store, nar, start, stop)
        except (NotFound, Corrupt) as error:
            self._log.error(
                "stored NAR {key} is {what}; it will be fetched again: {reason}",
                key=nar.key.file_name,
                what="missing" if isinstance(error, NotFound) else "damaged",
                reason=str(error),
            )
            if isinstance(error, Corrupt):
                await self._store.quarantine(nar.key)
        await self._catalog.mark_missing(nar.key)
        self._narinfos.changed(nar.key)
        lost = evolve(nar, stored_at=None, stored_size=None, verified_at=None)
        return await self._download(nar.key, lost).reader(start, stop)

    # Arriving bytes

    async def _follow(self, key: NarKey, download: Download, start: int, stop: int | None) -> Body:
        try:
            return await download.reader(start, stop)
        except Overtaken:  # passes through without being kept: this reader needs its own
            nar = await self._catalog.nar(key)
            return await self._start(key, nar, exclusive=False).reader(start, stop)

    def _download(self, key: NarKey, nar: NarRecord | None) -> Download:
        """Return the download of a NAR, starting it unless it runs."""
        return self._downloads.get(key) or self._start(key, nar)

    def _sources(self, key: NarKey, nar: NarRecord | None) -> Sources:
        return Sources(self._clock, self._upstreams, key, nar, self._narinfos.same_nar)

    def _start(self, key: NarKey, nar: NarRecord | None, *, exclusive: bool = True) -> Download:
        download = Download(
            clock=self._clock,
            key=key,
            expected=nar,
            sources=self._sources(key, nar),
            new_spool=self._new_spool,
            patience_s=self._patience_s,
        )
        self._downloads[key] = download
        self._tasks.start(f"download {key.file_name}", self._run(download, nar, exclusive))
        return download

    async def _run(self, download: Download, nar: NarRecord | None, exclusive: bool) -> None:
        key = download.key
        try:
            if exclusive:
                async with self._leases.hold(f"download:nar:{key.name}"):
                    await self._fetch(download, nar)
            else:
                await self._fetch(download, nar)
        except _AlreadyStored as error:
            download.give_up(error)
        except CancelledError:
            self._ended("cancelled")
            raise
        except NcpsError as error:
            self._ended("failed")
            download.give_up(error)
            self._log.warn(
                "download of {key} failed: {reason}", key=key.file_name, reason=str(error)
            )
        finally:
            download.give_up(Unavailable("the download has ended"))
            if self._downloads.get(key) is download:
                del self._downloads[key]

    async def _fetch(self, download: Download, nar: NarRecord | None) -> None:
        key = download.key
        current = await self._catalog.nar(key)
        if current is not None and current.is_stored:
            raise _AlreadyStored("stored meanwhile")
        try:
            arrived = await download.run()
        except (NotFound, Corrupt):
            if nar is None:
                self._negatives.add(key)
            else:
                await self._narinfos.lost(key)
            raise
        try:
            await self._publish(download, nar, arrived)
        finally:
            arrived.spool.release()

    async def _publish(self, download: Download, nar: NarRecord | None, arrived: Arrived) -> None:
        """Store what arrived: bytes first, then the row. What cannot be kept was served anyway."""
        key, spool, verdict = download.key, arrived.spool, arrived.verdict
        if not spool.is_kept:
            self._log.warn(
                "{key} was passed through but is not kept: {reason}",
                key=key.file_name,
                reason=spool.keep_error,
            )
            self._ended("unkept")
            return
        now = utc_now(self._clock)
        base = nar if nar is not None else NarRecord(key=key, compression="")
        record = evolve(
            base,
            file_size=verdict.size,
            file_hash=verdict.sha256,
            encoding=base.compression,
            stored_size=verdict.size,
            stored_at=now,
            verified_at=now if verdict.nar_verified else None,
            last_used_at=now,
        )
        try:
            await self._store.publish(key, spool.spooled(verdict.sha256))
            await self._catalog.mark_stored(record)
            await self._narinfos.published(record)
        except (StorageFull, Unavailable) as error:
            self._log.warn(
                "{key} was passed through but is not kept: {reason}",
                key=key.file_name,
                reason=str(error),
            )
            self._ended("unkept")
            return
        self._ended("published")
        self._log.info(
            "stored {key} ({size} bytes) from {upstream}",
            key=key.file_name,
            size=verdict.size,
            upstream=download.upstream,
        )
