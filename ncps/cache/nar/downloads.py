"""Downloads: those that run, begun once for each NAR and joined by all who ask for it (P4, D5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ncps.aio.recent import RecentSet
from ncps.aio.spool import Digest, Spool
from ncps.cache.nar.admission import Admission, Admitted
from ncps.cache.nar.attempt import Terms
from ncps.cache.nar.chosen import Chosen
from ncps.cache.nar.download import Download, DownloadEvents
from ncps.cache.nar.follow import RESUMED_S, TASTED_ENTRIES, TASTED_S
from ncps.cache.nar.judge import Judge
from ncps.cache.nar.publish import Publication
from ncps.cache.nar.relay import AlreadyStored, Relay
from ncps.cache.nar.served import open_stored
from ncps.cache.nar.sources import Sources
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import NcpsError, NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord


@frozen(kw_only=True)
class DownloadRules:
    """What an operator decides about downloads.

    :param patience_s: how long no byte may come, in mid-file, before a download is given up.
    :param new_judge: makes the judge of a file.
    """

    patience_s: float
    new_judge: Callable[..., Judge] = Judge


class Downloads:
    """The downloads of this process.

    :param negatives: told of NARs that nobody has.
    :ivar chosen: which of several files of a NAR clients were given a part of.
    """

    _log = Logger()

    def __init__(
        self,
        world: World,
        negatives: RecentSet,
        narinfos: NarInfos,
        publication: Publication,
        admission: Admission,
        rules: DownloadRules,
    ) -> None:
        self.chosen = Chosen(world.clock, world.catalog)
        self._world = world
        self._negatives = negatives
        self._narinfos = narinfos
        self._publication = publication
        self._admission = admission
        self._rules = rules
        self._running: dict[NarKey, Download] = {}
        self._tasted = RecentSet(world.clock, ttl_s=TASTED_S, max_entries=TASTED_ENTRIES)
        self._left = RecentSet(world.clock, ttl_s=RESUMED_S, max_entries=TASTED_ENTRIES)

    @property
    def count(self) -> int:
        """How many downloads are under way."""
        return len(self._running)

    def find(self, key: NarKey) -> Download | None:
        """Return the download to join. One that has failed is none, though it may not be over."""
        download = self._running.get(key)
        return None if download is None or download.has_failed else download

    def is_tasted(self, key: NarKey) -> bool:
        """Whether clients may come again for the rest of a NAR, so that no other file will do."""
        return key in self._tasted or key in self._left

    def join(self, key: NarKey, nar: NarRecord | None, *, may_replace: bool = False) -> Download:
        """Return the download of a NAR, and start it unless it runs. Raises Busy.

        :param may_replace: whether another file of the NAR will do; see `Supply`.
        """
        download = self.find(key)
        if download is None:
            return self.start(key, nar, may_replace=may_replace)
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

        :param exclusive: whether it is to hold the lease of the NAR.
        :param is_thorough: whether the NAR inside is looked into in any case.
        """
        ticket = self._admission.begin()
        sources = self.sources(key, nar)
        if may_replace:
            sources.allow_replacing()
        relay = self._relay(key, sources) if exclusive else None
        try:
            download = Download(
                self._world.clock,
                Terms(key, nar, partial(self._rules.new_judge, is_thorough=is_thorough)),
                relay or sources,
                partial(self._spool, ticket),
                self._rules.patience_s,
                DownloadEvents(
                    hopeless=partial(self._hopeless, key, nar),
                    found_wrong=partial(self.chosen.found_wrong, nar),
                    tasted=partial(self._note_taste, key, key in self._tasted),
                ),
            )
        except NcpsError:
            ticket.close()
            raise
        self._running[key] = download
        job = self._run(download, nar, ticket, relay)
        self._world.tasks.start(f"download {key.file_name}", job)
        return download

    def sources(self, key: NarKey, nar: NarRecord | None) -> Sources:
        """Make the upstreams' part in the supply of a NAR."""
        world, replaced = self._world, partial(self.chosen.add, key)
        return Sources(world.clock, world.upstreams, key, nar, self._narinfos.same_nar, replaced)

    def _spool(self, ticket: Admitted, total: int | None, digests: tuple[Digest, ...]) -> Spool:
        spool = self._world.new_spool(total, digests, ticket.room(total))
        ticket.follow(lambda: spool.length)
        return spool

    def _relay(self, key: NarKey, sources: Sources) -> Relay:
        return Relay(
            clock=self._world.clock,
            cluster=self._world.cluster,
            catalog=self._world.catalog,
            key=key,
            sources=sources,
            open_stored=partial(open_stored, self._world.nars, self._world.threads),
        )

    async def _run(
        self, download: Download, nar: NarRecord | None, ticket: Admitted, relay: Relay | None
    ) -> None:
        key = download.key
        try:
            await self._fetch(download, nar, ticket, relay)
        except AlreadyStored as error:
            download.give_up(error)
        except CancelledError:
            self._world.events.ended("cancelled")
            raise
        except NcpsError as error:
            self._world.events.ended("failed")
            download.give_up(error)
            name, reason = key.file_name, str(error)
            self._log.warn("download of {key} failed: {reason}", key=name, reason=reason)
        finally:
            download.give_up(Unavailable("the download has ended"))
            ticket.close()
            if self._running.get(key) is download:
                del self._running[key]
            if relay is not None:
                await relay.release()

    async def _fetch(
        self, download: Download, nar: NarRecord | None, ticket: Admitted, relay: Relay | None
    ) -> None:
        """Fetch a NAR and have it published, by us or by whoever shares the fetch.

        :param relay: None where the lease is somebody's whose bytes have passed us.
        """
        if relay is None:
            current = await self._world.catalog.nar(download.key)
            if current is not None and current.is_stored:
                raise AlreadyStored("stored meanwhile")
        await ticket.admit(nar.file_size if nar is not None else None)
        arrived = await download.run()
        try:
            lease = None if relay is None else await relay.settle()
            if relay is not None and lease is None:
                self._narinfos.changed(download.key)
                self._world.events.ended("relayed")
            else:
                fence = 0 if lease is None else lease.fence
                release = None if relay is None else relay.release
                await self._publication.publish(download, nar, arrived, fence, release)
        finally:
            arrived.spool.release()

    def _note_taste(self, key: NarKey, was_tasted: bool, is_good: bool) -> None:
        """Note that clients have bytes of a download, or that these were wrong.

        Clients of downloads before it know nothing of wrong bytes, and get a while to resume.
        """
        if is_good:
            self._tasted.add(key)
            return
        self._tasted.forget(key)
        if was_tasted:
            self._left.add(key)

    async def _hopeless(self, key: NarKey, nar: NarRecord | None, error: NcpsError) -> None:
        self.chosen.forget(key)
        if nar is not None:
            await self._narinfos.lost(key)
        elif isinstance(error, NotFound) and error.is_certain:
            self._negatives.add(key)
