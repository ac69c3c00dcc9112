"""NARs: open a stored one or join its download; publish what arrived; heal what was lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.recent import Negatives
from ncps.aio.spool import Abandoned, Digest, Overtaken, Spool
from ncps.aio.tasks import Tasks
from ncps.aio.threads import Threads
from ncps.ask.choose import Upstreams
from ncps.cache.answers import Absent, Outcome, ServedNar
from ncps.cache.nar.admission import Admission, Ticket
from ncps.cache.nar.adopt import Adoption
from ncps.cache.nar.chosen import Chosen
from ncps.cache.nar.download import Download
from ncps.cache.nar.follow import RESUMED_S, TASTED_ENTRIES, TASTED_S
from ncps.cache.nar.hearsay import is_hearsay, own_view
from ncps.cache.nar.judge import Seal
from ncps.cache.nar.publish import Publication
from ncps.cache.nar.relay import AlreadyStored, Cluster, Relay
from ncps.cache.nar.served import ArrivingNar, StoredNar, locate_stored, open_stored
from ncps.cache.nar.sources import Sources
from ncps.cache.nar.verify import Verifier
from ncps.cache.narinfo.last_use import Uses
from ncps.cache.narinfo.searches import refuse_ring
from ncps.cache.narinfo.serve import NarInfos
from ncps.errors import Corrupt, Malformed, NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body, Catalog, NarRecord, NarStore, Replaced


class Nars:
    """See the module.

    :param workers: undoes encodings of stored NARs.
    :param new_spool: makes a spool for a file of this size (None: unknown) and these digests; one
        that keeps nothing, if there is a reason for that (else empty).
    :param patience_s: see `Download`.
    :param ended: told how each download ended: "published", "relayed" (published by another
        process), "unkept", "failed" or "cancelled".
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        tasks: Tasks,
        catalog: Catalog,
        store: NarStore,
        cluster: Cluster,
        upstreams: Upstreams,
        narinfos: NarInfos,
        adoption: Adoption,
        verifier: Verifier,
        negatives: Negatives,
        uses: Uses,
        workers: Threads,
        new_spool: Callable[[int | None, tuple[Digest, ...], str], Spool],
        admission: Admission,
        patience_s: float,
        new_seal: Callable[..., Seal] = Seal,
        ended: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._catalog = catalog
        self._store = store
        self._cluster = cluster
        self._upstreams = upstreams
        self._narinfos = narinfos
        self._adoption = adoption
        self._verifier = verifier
        self._negatives = negatives
        self._uses = uses
        self._workers = workers
        self._new_spool = new_spool
        self._new_seal = new_seal
        self._admission = admission
        self._patience_s = patience_s
        self._ended = ended
        self._downloads: dict[NarKey, Download] = {}
        self._publication = Publication(
            clock=clock,
            catalog=catalog,
            store=store,
            narinfos=narinfos,
            adoption=adoption,
            admission=admission,
            ended=ended,
        )
        self._chosen = Chosen(clock, catalog)
        self._tasted = Negatives(clock, ttl_s=TASTED_S, max_entries=TASTED_ENTRIES)

    @property
    def arriving(self) -> int:
        """How many downloads are under way."""
        return len(self._downloads)

    def is_arriving(self, key: NarKey) -> bool:
        """Whether a NAR is being downloaded."""
        return self._arriving(key) is not None

    def _arriving(self, key: NarKey) -> Download | None:
        """The download to join. One that has failed is not, though its job may not be over yet."""
        download = self._downloads.get(key)
        return None if download is None or download.has_failed else download

    async def open(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """Return a NAR to serve; see `Cache.nar`. NotFound, Unavailable, Corrupt."""
        nar = await self._find(key)
        refuse_ring(key, nar)
        self._uses.nar(key if nar is None else nar.key)
        if nar is not None and nar.is_stored:
            return StoredNar(
                nar=nar,
                upstream=self._upstreams.name_of(nar.upstream),
                open_body=self._open_stored,
                locate=partial(locate_stored, self._store),
                spoil=self._verifier.healing.spoiled,
            )
        outcome = Outcome.COALESCED if self.is_arriving(key) else Outcome.MISS
        may_replace = not is_part and key not in self._tasted
        download = self._download(key, nar, may_replace=may_replace)
        try:
            await download.opened()
        except AlreadyStored:
            return await self.open(key, is_part=is_part)
        return ArrivingNar(download=download, outcome=outcome, open_body=self._follow)

    async def arriving_nar(self, key: NarKey) -> ArrivingNar:
        """Return a NAR that is being downloaded. NotFound: it is not; else as for `open`."""
        refuse_ring(key, None)
        download = self._arriving(key)
        if download is None:
            raise NotFound(f"{key.file_name} is not arriving here")
        await download.opened()
        return ArrivingNar(download=download, outcome=Outcome.COALESCED, open_body=self._follow)

    async def read(self, nar: NarRecord) -> Body:
        """Open all of a NAR; if it is fetched for that, NarHash is checked before it is stored."""
        key, has_arrived = nar.key, False
        while True:
            there = await self._catalog.nar(key)
            if there is None or not there.is_stored:
                there = await self._adoption.adopt(key, there or nar) or there
            if there is not None and there.is_stored:
                return await self._open_stored(there, 0, None)
            if has_arrived:  # the disk is full: they are read as they pass
                return await self._start(key, nar, exclusive=False, is_thorough=True).reader()
            download = self._arriving(key) or self._start(key, there or nar, is_thorough=True)
            has_arrived = True  # and the spool may be gone by now
            with suppress(AlreadyStored, Abandoned, Overtaken):
                await download.arrived.wait()
                return await download.reader()

    async def stat(self, key: NarKey) -> tuple[int | None, Outcome]:
        """Say whether `open` would succeed, and the size if it is sure. Errors as for `open`.

        What an upstream says of a size is not: no bytes follow that would find it out.
        """
        nar = await self._find(key)
        if nar is not None and nar.is_stored:
            body = await self._open_stored(nar, 0, 0)  # no byte is wanted, so none shall be sent
            body.close()
            return nar.file_size, Outcome.HIT
        refuse_ring(key, nar)
        download = self._arriving(key)
        if download is not None:
            try:
                await download.opened()
            except AlreadyStored:
                return await self.stat(key)
            return download.sure_size, Outcome.COALESCED
        sources = self._sources(key, nar)
        if key not in self._tasted:
            sources.allow_replacing()
        await sources.stat()
        # What upstreams say of a size no bytes will find out; only NarSize is signed.
        is_sure = nar is not None and nar.compression == "none"
        return nar.file_size if nar is not None and is_sure else None, Outcome.MISS

    async def is_here(self, key: NarKey) -> bool:
        """Whether a NAR is stored now; bytes without a row are taken over first. As `stat`."""
        nar = await self._find(key)
        return nar is not None and nar.is_stored

    async def _find(self, key: NarKey) -> NarRecord | None:
        """Return what is known of a NAR; bytes without a row are taken over first."""
        if self.is_arriving(key):
            return None
        nar = await self._catalog.nar(key) or self._narinfos.unrecorded(key)
        if nar is not None and nar.is_stored and is_hearsay(nar, self._upstreams):
            nar = await self._verifier.verify(nar) or await self._catalog.nar(key)
        if nar is not None and nar.is_stored:
            return nar
        nar = await self._stored_file(key) if nar is None else self._view(key, nar)
        if nar is not None and nar.is_stored:
            return nar
        if nar is None and key in self._negatives:
            raise Absent(f"no upstream has {key.file_name}", outcome=Outcome.NEGATIVE)
        if await self._cluster.is_fetched_elsewhere(key):
            return nar  # it is not in the store, which may be slow to say so
        adopted = await self._adoption.adopt(key, nar)
        if adopted is not None:
            await self._narinfos.published(adopted)
            return adopted
        return nar

    def _view(self, key: NarKey, nar: NarRecord) -> NarRecord:
        """What is known of a NAR that is not stored: of the file of which clients have a part."""
        return self._chosen.of(key, nar) or own_view(nar, self._upstreams)

    async def _stored_file(self, key: NarKey) -> NarRecord | None:
        """What is stored under another name and has the hash that this name says."""
        try:
            nar = await self._catalog.stored_file(key.as_hash(), key.extension)
        except Malformed:
            return None
        return None if nar is None else await self._adoption.own(key) or nar

    # Stored bytes

    async def _open_stored(self, nar: NarRecord, start: int, stop: int | None) -> Body:
        """Open stored bytes; if they turn out lost or damaged, heal and fetch them again."""
        try:
            try:
                return await open_stored(self._store, self._workers, nar, start, stop)
            except Replaced:
                verified = await self._verifier.compare(nar)
            if verified is not None:
                return await open_stored(self._store, self._workers, verified, start, stop)
            trouble: NcpsError = NotFound("set aside")
        except (NotFound, Corrupt) as error:
            trouble = error
        if not self.is_arriving(nar.key):  # else somebody is healing it already
            current = await self._catalog.nar(nar.key)
            if current is not None and current.stored_at not in {None, nar.stored_at}:
                return await self._open_stored(current, start, stop)  # somebody has healed it
            is_noted = current is not None and not current.is_stored
            if not (is_noted and isinstance(trouble, NotFound)):  # removed a moment ago
                await self._verifier.healing.heal(nar, trouble)
        download = self._download(nar.key, nar.without_bytes())
        return await self._follow(nar.key, download, start, stop)

    # Arriving bytes

    async def _follow(self, key: NarKey, download: Download, start: int, stop: int | None) -> Body:
        """Follow a download; if its bytes have passed, take them from the store or fetch anew."""
        try:
            return await download.reader(start, stop)
        except (Overtaken, AlreadyStored) as error:
            nar = await self._catalog.nar(key) or self._narinfos.unrecorded(key)
            if nar is not None and nar.is_stored:
                return await self._open_stored(nar, start, stop)
            if isinstance(error, AlreadyStored):
                raise
        return await self._start(key, nar, exclusive=False).reader(start, stop)

    def _download(
        self, key: NarKey, nar: NarRecord | None, *, may_replace: bool = False
    ) -> Download:
        """Return the download of a NAR, starting it unless it runs.

        :param may_replace: whether another file of the NAR will do; see `Supply`.
        """
        download = self._arriving(key)
        if download is None:
            return self._start(key, nar, may_replace=may_replace)
        if may_replace:
            download.sources.allow_replacing()
        return download

    def _sources(self, key: NarKey, nar: NarRecord | None) -> Sources:
        replaced = partial(self._chosen.add, key)
        return Sources(self._clock, self._upstreams, key, nar, self._narinfos.same_nar, replaced)

    def _start(
        self,
        key: NarKey,
        nar: NarRecord | None,
        *,
        exclusive: bool = True,
        may_replace: bool = False,
        is_thorough: bool = False,
    ) -> Download:
        ticket = self._admission.begin()
        sources = self._sources(key, nar)
        if may_replace:
            sources.allow_replacing()
        relay = self._relay(key, sources) if exclusive else None
        try:
            download = Download(
                clock=self._clock,
                key=key,
                expected=nar,
                sources=relay or sources,
                new_spool=partial(self._spool, ticket),
                patience_s=self._patience_s,
                new_seal=partial(self._new_seal, is_thorough=is_thorough),
                hopeless=partial(self._hopeless, key, nar),
                found_wrong=partial(self._chosen.found_wrong, nar),
                tasted=partial(self._note_taste, key, key in self._tasted),
            )
        except NcpsError:
            ticket.close()
            raise
        self._downloads[key] = download
        job = self._run(download, nar, ticket, relay)
        self._tasks.start(f"download {key.file_name}", job)
        return download

    def _spool(self, ticket: Ticket, total: int | None, digests: tuple[Digest, ...]) -> Spool:
        spool = self._new_spool(total, digests, ticket.room(total))
        ticket.follow(lambda: spool.length)
        return spool

    def _relay(self, key: NarKey, sources: Sources) -> Relay:
        return Relay(
            clock=self._clock,
            cluster=self._cluster,
            catalog=self._catalog,
            key=key,
            sources=sources,
            open_stored=partial(open_stored, self._store, self._workers),
        )

    async def _run(
        self, download: Download, nar: NarRecord | None, ticket: Ticket, relay: Relay | None
    ) -> None:
        key = download.key
        try:
            await self._fetch(download, nar, ticket, relay)
        except AlreadyStored as error:
            download.give_up(error)
        except CancelledError:
            self._ended("cancelled")
            raise
        except NcpsError as error:
            self._ended("failed")
            download.give_up(error)
            name, reason = key.file_name, str(error)
            self._log.warn("download of {key} failed: {reason}", key=name, reason=reason)
        finally:
            download.give_up(Unavailable("the download has ended"))
            ticket.close()
            if self._downloads.get(key) is download:
                del self._downloads[key]
            if relay is not None:
                await relay.release()

    async def _fetch(
        self, download: Download, nar: NarRecord | None, ticket: Ticket, relay: Relay | None
    ) -> None:
        """Fetch a NAR and have it published, by us or by whoever shares the fetch.

        :param relay: None where the lease is somebody's whose bytes have passed us.
        """
        if relay is None:
            current = await self._catalog.nar(download.key)
            if current is not None and current.is_stored:
                raise AlreadyStored("stored meanwhile")
        await ticket.admit(nar.file_size if nar is not None else None)
        arrived = await download.run()
        try:
            lease = None if relay is None else await relay.settle()
            if relay is not None and lease is None:
                self._narinfos.changed(download.key)
                self._ended("relayed")
            else:
                fence = 0 if lease is None else lease.fence
                release = None if relay is None else relay.release
                await self._publication.publish(download, nar, arrived, fence, release)
        finally:
            arrived.spool.release()

    def _note_taste(self, key: NarKey, was_tasted: bool, is_good: bool) -> None:
        """Note that clients have bytes, or that these were wrong; clients of before resume."""
        if is_good or was_tasted:
            self._tasted.add(key, ttl_s=None if is_good else RESUMED_S)
        else:
            self._tasted.forget(key)

    async def _hopeless(self, key: NarKey, nar: NarRecord | None, error: NcpsError) -> None:
        self._chosen.forget(key)
        if nar is not None:
            await self._narinfos.lost(key)
        elif isinstance(error, NotFound) and error.is_certain:
            self._negatives.add(key)
