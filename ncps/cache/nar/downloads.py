"""Downloads: begins one for each NAR; all clients that ask for the NAR join it (P4, D5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.admission import Admitted
from ncps.aio.clocks import utc_now
from ncps.aio.guess import is_unwanted
from ncps.aio.recent import RecentMap, RecentSet
from ncps.cache.cluster import FetchLease
from ncps.cache.nar.attempt import Terms
from ncps.cache.nar.download import Download, DownloadEvents, RunningDownloads
from ncps.cache.nar.fetch import Fetch
from ncps.cache.nar.relay import AlreadyStored, Relay
from ncps.cache.nar.sources import Sources
from ncps.cache.nar.stored import Publication
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import NcpsError, NotFound, StorageFull, Unavailable
from ncps.nix.judge import Judge, WrongNar
from ncps.nix.narurl import NarKey
from ncps.observe.decisions import are_logged
from ncps.observe.tracing.spans import current, span
from ncps.ports import Catalog, NarRecord

PARTLY_SENT_S: Final = 3600.0
"""Seconds for which clients with a part of a file may come again for the rest."""

RESUMED_S: Final = 60.0
"""The same after the file was found wrong. Then another file may take its place."""

PARTLY_SENT_ENTRIES: Final = 50_000

CHOSEN_S: Final = 3600.0
MAX_CHOSEN: Final = 10_000


@frozen(kw_only=True)
class DownloadRules:
    """The decisions of an operator about downloads.

    :param patience_s: seconds without a byte, in mid-file, after which a download is given up.
    :param new_judge: makes the judge of a file.
    """

    patience_s: float
    new_judge: Callable[..., Judge]


class Chosen:
    """Remembers the file behind a NAR's name, if clients have a part of another than the row's.

    Where no upstream has the file that a narinfo names, another file of the NAR may take its place.
    From then on the name stands for this file: a client whose connection broke gets the rest of
    this file, or an error. The catalog records this for the next start of this process and for
    other replicas. After a file was found to hold another NAR, no name stands for it any more.

    The records of such files are remembered for `CHOSEN_S` seconds; the oldest go first.
    """

    def __init__(self, clock: IReactorTime, catalog: Catalog) -> None:
        self._clock = clock
        self._catalog = catalog
        self._records: RecentMap[NarKey, NarRecord] = RecentMap(
            clock, ttl_s=CHOSEN_S, max_entries=MAX_CHOSEN
        )

    async def add(self, key: NarKey, record: NarRecord) -> None:
        """Note the file that is fetched under a name."""
        record = evolve(record, key=key)
        self._records.put(key, record)
        with suppress(Unavailable, StorageFull):
            await self._catalog.restate(record)

    async def found_wrong(self, nar: NarRecord | None, error: WrongNar) -> None:
        """Remember that a file does not hold the NAR that its narinfo says.

        :param nar: the NAR's record at the time of the fetch; it has a NarHash.
        """
        assert nar is not None
        assert nar.nar_hash is not None
        with suppress(Unavailable, StorageFull):  # the next fetch finds this out again
            if error.is_read:
                now = utc_now(self._clock)
                await self._catalog.note_wrong(nar.nar_hash, error.file_hash, now)
            row = await self._catalog.nar(nar.key)
            is_same = row is not None and row.file_hash == error.file_hash
            if row is not None and is_same and row.nar_hash == nar.nar_hash:
                await self._catalog.restate(
                    evolve(row, file_hash=None, file_size=None, upstream="", origin_url="")
                )

    def of(self, key: NarKey, nar: NarRecord) -> NarRecord | None:
        """Return the record of the file behind a name; None if it is the file that the row names.

        :param nar: the row.
        """
        record = self._records.get(key)
        if record is None or nar.was_stored or record.nar_hash != nar.nar_hash:
            return None
        return record

    def forget(self, key: NarKey) -> None:
        """Forget the file behind a name, because no upstream has it any more."""
        self._records.forget(key)


class Downloads:
    """The downloads of this process.

    :param negatives: receives the NARs that no upstream has.
    :ivar running: the downloads that run.
    :ivar chosen: remembers of which of a NAR's files clients have a part.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        negatives: RecentSet,
        narinfos: NarInfos,
        publication: Publication,
        rules: DownloadRules,
    ) -> None:
        self.chosen = Chosen(world.clock, world.catalog)
        self._world = world
        self._negatives = negatives
        self._narinfos = narinfos
        self._publication = publication
        self._rules = rules
        self.running = RunningDownloads()
        self._partly_sent = RecentSet(
            world.clock, ttl_s=PARTLY_SENT_S, max_entries=PARTLY_SENT_ENTRIES
        )
        self._left = RecentSet(world.clock, ttl_s=RESUMED_S, max_entries=PARTLY_SENT_ENTRIES)

    @property
    def count(self) -> int:
        """Number of downloads that run."""
        return len(self.running)

    def find(self, key: NarKey) -> Download | None:
        """Return the running download of a NAR; see `RunningDownloads.find`."""
        return self.running.find(key)

    def is_partly_sent(self, key: NarKey) -> bool:
        """Return whether clients may have a part of a NAR's file, so that no other file will do."""
        return key in self._partly_sent or key in self._left

    def join(self, key: NarKey, nar: NarRecord | None, *, may_replace: bool = False) -> Download:
        """Return the download of a NAR, and start it unless it runs.

        Raises Busy if too many run.

        :param may_replace: whether another file of the NAR will do, unless clients have bytes.
        """
        may_replace = may_replace and not self.is_partly_sent(key)
        download = self.find(key)
        if download is None:
            download = self.start(key, nar, may_replace=may_replace)
        else:
            current().link(download.span)
            download.is_asked_for()
            if may_replace:
                download.sources.allow_replacing()
        return download

    def start(
        self,
        key: NarKey,
        nar: NarRecord | None,
        *,
        exclusive: bool = True,
        may_replace: bool = False,
        is_thorough: bool = False,
    ) -> Download:
        """Start a download. Raises Busy if too many run.

        :param exclusive: whether the download must hold the lease of the NAR.
        :param is_thorough: whether the NAR inside is always hashed.
        """
        ticket = self._world.admission.begin()
        sources = self.sources(key, nar)
        if may_replace:
            sources.allow_replacing()
        try:
            download = Download(
                Terms(key, nar, partial(self._rules.new_judge, is_thorough=is_thorough)),
                sources,
                ticket.growing,
                DownloadEvents(
                    hopeless=partial(self._hopeless, key, nar),
                    found_wrong=partial(self.chosen.found_wrong, nar),
                    sent=partial(self._note_sent, key, key in self._partly_sent),
                    hurry=self._publication.beat.hurry,
                ),
            )
        except NcpsError:
            ticket.close()
            raise
        self.running.enter(download)
        lease = FetchLease(self._world.leases, key) if exclusive else None
        if are_logged():
            _tell_begun(self._log, key, nar, has_lease=exclusive)
        job = self._run_traced(download, nar, ticket, lease)
        self._world.tasks.start(f"download {key.file_name}", job)
        return download

    async def _run_traced(
        self, download: Download, nar: NarRecord | None, ticket: Admitted, lease: FetchLease | None
    ) -> None:
        """Run the job of a download, which has one span for all clients that join it."""
        with span("nar.download", {"ncps.hash": download.key.file_name}) as step:
            download.span = step
            await self._run(download, nar, ticket, lease)

    def sources(self, key: NarKey, nar: NarRecord | None) -> Sources:
        """Return the sources of a NAR at the upstreams."""
        world, replaced = self._world, partial(self.chosen.add, key)
        return Sources(world.clock, world.upstreams, key, nar, self._narinfos.same_nar, replaced)

    async def _run(
        self, download: Download, nar: NarRecord | None, ticket: Admitted, lease: FetchLease | None
    ) -> None:
        """Do the job of a download.

        :param lease: None if another download has the lease, and its first bytes are gone.
        """
        key = download.key
        try:
            if lease is None:
                await self._refuse_stored(key)
            await ticket.admit(nar.file_size if nar is not None else None)
            await self._fetch(download, nar, lease)
        except AlreadyStored as error:
            download.give_up(error)
        except CancelledError:
            download.give_up(Unavailable("the daemon is stopping"))
            self._world.metrics.downloads("cancelled").inc()
            raise
        except NcpsError as error:
            self._world.metrics.downloads("failed").inc()
            download.give_up(error)
            download.span.failed(str(error))
            name, reason = key.file_name, str(error)
            tell = self._log.debug if is_unwanted() else self._log.warn
            tell("download of {key} failed: {reason}", key=name, reason=reason)
        finally:
            download.give_up(Unavailable("the download has ended"))
            ticket.close()
            if lease is not None:
                await lease.release()
            self.running.leave(download)

    async def _refuse_stored(self, key: NarKey) -> None:
        """Raise AlreadyStored if another process has stored the NAR by now."""
        current = await self._world.catalog.nar(key)
        if current is not None and current.is_stored:
            raise AlreadyStored("another process has stored it")

    async def _fetch(
        self, download: Download, nar: NarRecord | None, lease: FetchLease | None
    ) -> None:
        """Fetch a NAR, and publish it unless the process with the lease does."""
        key, sources, relay = download.key, download.sources, None
        if lease is not None and await lease.is_ours():
            await self._refuse_stored(key)
        elif lease is not None:
            relay = Relay(self._world, key, sources, lease)
        rounds = sources.each if relay is None else relay.each
        arrived = await Fetch(self._world.clock, download, rounds, self._rules.patience_s).run()
        try:
            if relay is None and lease is not None and (lease.held is None or lease.held.is_lost):
                relay = Relay(self._world, key, sources, lease)
            if relay is not None and await relay.settle() is None:
                self._narinfos.changed(key)
                self._world.metrics.downloads("relayed").inc()
            elif download.is_disowned:
                self._publication.unkept(key, "it was deleted while it arrived")
            else:
                await self._publication.publish(
                    key, nar, arrived, lease, is_awaited=download.is_awaited
                )
        finally:
            arrived.spool.release()

    def _note_sent(self, key: NarKey, was_partly_sent: bool, is_good: bool) -> None:
        """Note that clients have bytes of a download, or that these bytes were wrong.

        Clients of earlier downloads, which have wrong bytes, get `RESUMED_S` seconds to resume.
        """
        if is_good:
            self._partly_sent.add(key)
            return
        self._partly_sent.forget(key)
        if was_partly_sent:
            self._left.add(key)

    async def _hopeless(self, key: NarKey, nar: NarRecord | None, error: NcpsError) -> None:
        self.chosen.forget(key)
        if nar is not None:
            await self._narinfos.lost(key)
        elif isinstance(error, NotFound) and error.is_certain:
            self._negatives.add(key)


def _tell_begun(log: Logger, key: NarKey, nar: NarRecord | None, *, has_lease: bool) -> None:
    log.debug(
        "download of {key} begins: {reason}{lease}",
        key=key.file_name,
        reason=_why_fetched(nar),
        lease="" if has_lease else "; without its lease, another process publishes it",
    )


def _why_fetched(nar: NarRecord | None) -> str:
    if nar is None:
        return "it is not stored, and no narinfo of it is known"
    if nar.was_stored:
        return "it was stored, and its bytes were removed or lost"
    return "it has a narinfo, and was never stored"
