"""NcpsService: everything started in order, ready only when it can serve, stopped in order.

start   settings -> locks -> storage -> schema -> threads -> database -> key -> upstreams
        -> leases -> listen -> READY
stop    no new connections -> drain responses -> end downloads -> times of use -> upstreams
        -> leases -> database -> threads -> locks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from ncps import __version__
from ncps.aio.allocator import keep_large_blocks
from ncps.aio.ending import Ending
from ncps.aio.reactor import chosen_reactor
from ncps.aio.signals import hear_no_more, hear_signals, ignore_others
from ncps.aio.tasks import Tasks
from ncps.assembly.checks import Locks, check
from ncps.assembly.cluster import cluster, peer_clients
from ncps.assembly.core import WorkingCache, working_cache
from ncps.assembly.databases import remake
from ncps.assembly.edge import inner_pages, let_fit, site
from ncps.assembly.fetching import metrics, upstreaming
from ncps.assembly.keys import imported_key
from ncps.assembly.leases import Locking, locking
from ncps.assembly.names import HostNames
from ncps.assembly.parts import Adapters, adapters
from ncps.assembly.replicas import agreement_of, identity_of
from ncps.assembly.role import Alone, Role, address_of, closed
from ncps.assembly.tickers import tickers
from ncps.assembly.world import counted, world
from ncps.cache.upkeep.agreement import Agreement
from ncps.errors import NcpsError
from ncps.observe import log_queue
from ncps.observe.loop_lag import LoopLag
from ncps.observe.process_metrics import catch_up
from ncps.settings.schema.tree import Settings
from ncps.upstream.agent import Client
from ncps.upstream.peers import PeerClients
from ncps.web.fast.transport import adopt
from ncps.web.site import NcpsSite


class NcpsService(Service):
    """See the module.

    :param reactor: runs everything; stopped when the start fails.
    :param place: how this process stands to others; by default it is alone.
    :param logs_failure: whether a start that failed is logged; not where its maker tells it.
    :ivar failure: why the start failed, for the exit code.
    :ivar started: told once how the start has ended: why it failed, or nothing.
    :ivar ending: the time that what runs has at the end, which can be cut.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any = None,
        place: Role | None = None,
        *,
        logs_failure: bool = True,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - the operator's choice
        self.failure: NcpsError | None = None
        self._logs_failure = logs_failure
        self.started: Callable[[str], object] = lambda _: None
        self.ending = Ending(
            reactor,
            delay_s=settings.server.drain_delay_s,
            drain_s=settings.server.drain_timeout_s,
        )
        self._settings = settings
        self._reactor = reactor
        self._place = place if place is not None else Alone(reactor)
        self._locks = Locks()
        self._tasks = Tasks(reactor)
        self._parts: Adapters | None = None
        self._core: WorkingCache | None = None
        self._clients: tuple[Client, ...] = ()
        self._peers: PeerClients | None = None
        self._names = HostNames(reactor, settings)
        self._agreed: Locking | None = None
        self._agreement: Agreement | None = None
        self._site: NcpsSite | None = None
        self._ports: list[IListeningPort] = []
        self._lag: LoopLag | None = None
        self._starting: Deferred[None] | None = None

    def check(self) -> None:
        """Take the locks, probe the storage, bring the schema up to date; before the reactor runs.

        A worker leaves that to its supervisor, but for an SQLite file removed meanwhile.
        Refused, StorageFull, Unavailable: what is wrong and what would be right.
        """
        self._parts = adapters(self._reactor, self._settings)
        imported_key(self._settings)
        if not self._place.is_in_charge:
            remake(self._settings)
            return
        check(self._settings, self._parts, self._locks)

    def privilegedStartService(self) -> None:
        """See `IService`: what can stop the start is looked at before anything runs."""
        try:
            if self._parts is None:
                self.check()
        except NcpsError as error:
            self.release_locks()
            self._log.critical("cannot start: {reason}", reason=str(error))
            self.started(str(error))
            raise SystemExit(1) from error

    def startService(self) -> None:
        """See `IService`."""
        self.privilegedStartService()  # `twist` does not
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    def _start_failed(self, failure: Any) -> None:
        if not self.running:
            return  # told to stop meanwhile
        error = failure.value
        if isinstance(error, NcpsError):
            if self._logs_failure:
                self._log.critical("cannot start: {reason}", reason=str(error))
            self.failure = error
        else:
            self._log.failure("cannot start", failure)
            self.failure = NcpsError("an unexpected error, of which the log has more")
        self.started(str(self.failure))
        self._reactor.callWhenRunning(self._reactor.stop)

    async def _start(self) -> None:
        parts = self._parts
        assert parts is not None, "check() comes first"
        settings = self._settings
        keep_large_blocks()
        parts.workers.start()
        self._names.start()
        parts.stores.start()
        parts.database.open()
        counters = metrics(settings)
        counters.before_scrape(catch_up(counters.process.log_dropped, log_queue.dropped))
        parts.timings.tell = lambda kind, took_s: counters.database_seconds(kind).observe(took_s)
        self._place.begin(counters)
        identity = await identity_of(parts, settings, self._place)
        self._agreement = agreement_of(parts, settings, identity)
        reactor, workers, via = self._reactor, parts.workers, self._place.via
        whom = upstreaming(reactor, settings, counters, self._tasks, workers, via, self._names)
        self._clients = whom.clients
        self._peers = peer_clients(self._reactor, settings, counters, self._place)
        self._agreed = locking(self._reactor, settings, counters, self._place)
        await self._agreed.start()
        seen = world(
            self._reactor,
            parts,
            self._tasks,
            cluster=cluster(settings, self._agreed.leases, self._peers, self._place),
            notices=self._agreed.notices,
            upstreams=whom.upstreams,
            events=counted(counters, self._stored),
        )
        self._core = working_cache(
            seen,
            settings,
            parts,
            counters,
            key=identity.key,
            agreed=self._agreed,
            place=self._place,
            agreement=self._agreement,
        )
        whom.probes.start()

        for ticker in tickers(
            self._reactor,
            settings,
            parts,
            counters,
            self._core,
            self._agreed,
            self._agreement,
        ):
            self._tasks.start(ticker.name, ticker.run())
        self._lag = LoopLag(self._reactor, counters.process.loop_lag.observe)
        self._lag.start()
        self._site = site(
            self._reactor, settings, self._core.cache, counters, self._place, self._peers
        )
        await self._place.enter(inner_pages(self._reactor, settings, self._core.cache, self._place))
        let_fit(settings, self._site)
        async for port in self._place.open(settings, self._site):
            adopt(port)
            self._site.crowd.add(port)
            self._ports.append(port)
        self._log.info(
            "ncps {version} serves {hostname} on {addresses}, public key {key}, cluster {cluster}",
            version=__version__,
            hostname=settings.cache.hostname,
            addresses=", ".join(address_of(port) for port in self._ports),
            key=str(identity.key.public),
            cluster=identity.cluster,
        )
        self._place.tell("READY=1")
        self.started("")

    def stopService(self) -> Deferred[None]:
        """See `IService`: fires when everything has ended."""
        super().stopService()
        if self._starting is not None:
            self._starting.cancel()  # harmless when it has ended
        stopped = Deferred.fromCoroutine(self._stop())
        # The reactor waits for its triggers, and says nothing of those that fail.
        return stopped.addErrback(lambda failure: self._log.failure("cannot stop", failure))

    async def _stop(self) -> None:
        ending = self.ending
        ending.begin()
        self._place.tell("STOPPING=1")
        if self._site is not None:
            self._tell_what_runs(self._site)
            self._site.is_leaving = True
            await ending.pause(ending.delay_s)
            self._site.crowd.leave()
        for port in self._ports:
            await closed(port)
        if self._site is not None:
            ending.on_cut(self._site.cut)
            cut = await self._site.drain(ending.left_s)
            if cut:
                self._log.warn("{count} connections were cut", count=cut)
        if self._lag is not None:
            self._lag.stop()
        await self._end_tasks()
        await self._place.leave(ending)
        if self._core is not None:
            await self._flush_uses()
        await self._disconnect()
        self.release_locks()
        if self.failure is None:
            self._log.info("ncps has stopped")

    async def _disconnect(self) -> None:
        """Leave the cluster, and close what leads to other servers, files and threads."""
        ending = self.ending
        if self._agreement is not None:
            await self._agreement.leave()
        for client in self._clients:
            await client.close()
        if self._peers is not None:
            await self._peers.close()
        if self._agreed is not None:
            await self._agreed.stop(ending.aftermath_s)
        await self._names.stop()
        if self._parts is not None:
            self._parts.database.close()
            await self._parts.stores.stop(ending.aftermath_s)
            await self._parts.workers.stop(ending.aftermath_s)

    def _stored(self) -> None:
        if self._core is not None and self._core.upkeep.eviction is not None:
            self._core.upkeep.eviction.stored()

    def _tell_what_runs(self, site: NcpsSite) -> None:
        downloads = 0 if self._core is None else self._core.core.nars.arriving
        if not (site.answering or downloads or self.ending.delay_s):
            return
        self._log.info(
            "stopping: {answers} answers and {downloads} downloads are running, up to {seconds} s;"
            " a second signal cuts them",
            answers=site.answering,
            downloads=downloads,
            seconds=round(self.ending.left_s, 1),
        )

    async def _end_tasks(self) -> None:
        """Let downloads end until the deadline; tickers never end by themselves."""
        core = self._core
        while core is not None and core.core.nars.arriving and self.ending.left_s > 0:
            await self.ending.pause(0.05)
        await self._tasks.stop(0.0)

    async def _flush_uses(self) -> None:
        assert self._core is not None
        try:
            await self._core.core.state.uses.flush()
        except NcpsError as error:
            self._log.warn("times of last use are lost: {reason}", reason=str(error))

    @property
    def lock_fds(self) -> list[int]:
        """Descriptors of the locks, for processes that shall hold them, too."""
        return self._locks.fds

    def release_locks(self) -> None:
        """Let another process have the store and the database; idempotent."""
        self._locks.release()


def serve(settings: Settings) -> int:
    """Run alone until told to stop; return the exit code. NcpsError: it could not start."""
    run = chosen_reactor()
    ignore_others(run)
    service = NcpsService(settings, run, logs_failure=False)
    try:
        service.check()
    except NcpsError:
        service.release_locks()
        raise
    hear_signals(run, service.ending.cut)
    run.addSystemEventTrigger("before", "shutdown", service.stopService)
    run.callWhenRunning(service.startService)
    run.run()
    hear_no_more()
    if service.failure is not None:
        raise service.failure
    return 0
