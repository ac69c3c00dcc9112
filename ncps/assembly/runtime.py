"""Runtime: all parts that run in one process, started in order and stopped in order.

start   threads -> database -> key -> telemetry -> upstreams -> leases -> core -> tickers -> listen
stop    no new connections -> drain responses -> end downloads -> times of use -> upstreams
        -> leases -> database -> threads -> telemetry
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from ncps.aio.ending import Ending
from ncps.aio.tasks import Tasks, Ticker
from ncps.assembly.access import AccessControl, access_control
from ncps.assembly.cluster import cluster, peer_clients
from ncps.assembly.core import WorkingCache, working_cache
from ncps.assembly.edge import (
    bulk_routes,
    certificates,
    extra_routes,
    inner_pages,
    let_fit,
    site,
)
from ncps.assembly.fetching import Upstreaming
from ncps.assembly.greeting import addresses, tell
from ncps.assembly.leases import Locking, locking
from ncps.assembly.names import HostNames
from ncps.assembly.parts import Foundation
from ncps.assembly.reloaders import (
    Reloader,
    of_certificates,
    of_clients,
    of_core,
    of_process,
    of_uploads,
)
from ncps.assembly.replicas import agreement_of, identity_of
from ncps.assembly.role import Entrance, closed
from ncps.assembly.rotation import signing
from ncps.assembly.status import StatusLine
from ncps.assembly.telemetry import begin, telemetry_of
from ncps.assembly.tickers import tickers
from ncps.assembly.world import world
from ncps.cache.upkeep.agreement import Agreement
from ncps.errors import NcpsError
from ncps.observe import log_queue
from ncps.observe.loop_lag import LoopLag
from ncps.observe.process_metrics import catch_up
from ncps.upstream.peers import PeerClients
from ncps.web.certificates import Certificates
from ncps.web.fast.tls import encrypt
from ncps.web.fast.transport import adopt
from ncps.web.site import NcpsSite

if TYPE_CHECKING:
    from ncps.observe.otel.telemetry import Telemetry

CERTIFICATES_S: Final = 5.0
"""Seconds between two checks of the files of the certificate."""


class Runtime:
    """Starts all parts of a process, and stops those that were started.

    :param ending: the time that running work has at the end.
    :ivar status: the line that `systemctl status` shows.
    :ivar reloaders: apply new settings, one after the other; empty before the end of the start.
    """

    _log = Logger()

    def __init__(self, base: Foundation, ending: Ending) -> None:
        self.status = StatusLine(base.role)
        self._base = base
        self._ending = ending
        self._tasks = Tasks(base.reactor)
        self._names = HostNames(base.reactor, base.settings)
        self._lag = LoopLag(base.reactor, base.metrics.process.loop_lag.observe)
        self._upstreams: Upstreaming | None = None
        self._peers: PeerClients | None = None
        self._locking: Locking | None = None
        self._agreement: Agreement | None = None
        self._core: WorkingCache | None = None
        self._access: AccessControl | None = None
        self._site: NcpsSite | None = None
        self._entrances: list[Entrance] = []
        self._telemetry: Telemetry | None = None
        self.reloaders: tuple[Reloader, ...] = ()

    async def start(self) -> None:
        """Start all parts; return when clients are served. Raises NcpsError if that fails."""
        base = self._base
        self._open()
        identity = await identity_of(base.parts, base.settings, base.role)
        self._telemetry = telemetry_of(base, identity)
        self._base = base = begin(base, self._telemetry, self._tasks)
        self._agreement = agreement = agreement_of(base.parts, base.settings, identity)
        self._upstreams = upstreams = Upstreaming(base, self._tasks, self._names)
        self._peers = peers = peer_clients(base)
        self._locking = locks = locking(base)
        await locks.start()
        seen = world(
            base,
            self._tasks,
            cluster=cluster(base, locks.leases, peers),
            notices=locks.notices,
            upstreams=upstreams.upstreams,
        )
        self._core = core = working_cache(
            seen, base, identity=identity, locking=locks, agreement=agreement
        )
        upstreams.probes.start()
        self._access = access = access_control(base, self._tasks)
        await access.begin()
        for ticker in tickers(base, core, locks, agreement, access, self.status):
            self._tasks.start(ticker.name, ticker.run())
        self._lag.start()
        secured = certificates(base)
        entrance = await self._listen(core, peers, access, secured)
        self.reloaders = (
            *of_process(self._ending, entrance),
            of_certificates(secured),
            of_clients(base, access, entrance),
            *of_core(seen, core.core, agreement),
            of_uploads(core.uploads.rules, core.core),
            partial(signing, base, core),
            upstreams.take,
        )
        self.status.addresses = addresses(self._entrances)
        tell(base.settings, identity, self._entrances)

    def _open(self) -> None:
        """Start threads, open the database, and count lost log lines in the metrics."""
        parts, metrics = self._base.parts, self._base.metrics
        parts.workers.start()
        self._names.start()
        parts.stores.start()
        parts.database.open()
        metrics.before_scrape(catch_up(metrics.process.log_dropped, log_queue.dropped))
        self._base.role.begin(metrics)

    async def _listen(
        self,
        core: WorkingCache,
        peers: PeerClients,
        access: AccessControl,
        secured: Certificates | None,
    ) -> NcpsSite:
        """Listen for siblings, then for clients."""
        base = self._base
        warnings: Callable[[], list[str]] = list
        if secured is not None:
            await secured.look()
            ticker = Ticker(base.reactor, "certificates", secured.look, CERTIFICATES_S)
            self._tasks.start(ticker.name, ticker.run())
            warnings = secured.warnings
        more = [*bulk_routes(base, core.bulk), *extra_routes(base, core.extras)]
        self._site = entrance = site(
            base,
            core.cache,
            peers,
            access,
            core.closures,
            warnings,
            uploads=core.uploads,
            more=more,
        )
        if secured is not None:
            secured.on_era = entrance.end_outdated
        await base.role.enter(inner_pages(base, core.cache), base.tracer)
        let_fit(base.settings, entrance)
        async for opened in base.role.open(base.settings, entrance):
            self._entrances.append(opened)
            if opened.is_encrypted and secured is not None:
                encrypt(opened.port, secured)
            else:
                adopt(opened.port)
            entrance.crowd.add(opened.port)
        return entrance

    async def stop(self) -> None:
        """Stop all parts that were started; return when they have ended."""
        ending = self._ending
        if self._core is not None:
            self._core.core.ahead.stop()
        if self._site is not None:
            self._tell_what_runs(self._site)
            self._site.is_leaving = True
            await ending.pause(ending.delay_s)
            self._site.crowd.leave()
        for entrance in self._entrances:
            await closed(entrance.port)
        if self._site is not None:
            ending.on_cut(self._site.cut)
            cut = await self._site.drain(ending.left_s)
            if cut:
                self._log.warn("{count} connections were cut", count=cut)
        self._lag.stop()
        await self._end_tasks()
        await self._base.role.leave(ending)
        if self._core is not None:
            await self._flush_uses(self._core)
        await self._disconnect()

    async def _disconnect(self) -> None:
        """Leave the cluster, close connections to servers and files, and stop the threads."""
        ending, parts = self._ending, self._base.parts
        if self._agreement is not None:
            await self._agreement.leave()
        if self._upstreams is not None:
            for client in self._upstreams.clients:
                await client.close()
        if self._access is not None:
            await self._access.vouched.close()
        if self._peers is not None:
            await self._peers.close()
        if self._locking is not None:
            await self._locking.stop(ending.aftermath_s)
        await self._names.stop()
        parts.database.close()
        await parts.stores.stop(ending.aftermath_s)
        await parts.workers.stop(ending.aftermath_s)
        if self._telemetry is not None:
            await self._telemetry.stop(ending.aftermath_s)

    def _tell_what_runs(self, site: NcpsSite) -> None:
        downloads = 0 if self._core is None else self._core.core.running.wanted
        if not (site.answering or downloads or self._ending.delay_s):
            return
        self._log.info(
            "stopping: {answers} answers and {downloads} downloads are running, up to {seconds} s;"
            " a second signal cuts them",
            answers=site.answering,
            downloads=downloads,
            seconds=round(self._ending.left_s, 1),
        )

    async def _end_tasks(self) -> None:
        """Wait for downloads until the deadline, then cancel all tasks, tickers included.

        A download that no client has asked for is not waited for.
        """
        core = self._core
        while core is not None and core.core.running.wanted and self._ending.left_s > 0:
            await self._ending.pause(0.05)
        await self._tasks.stop(0.0)

    async def _flush_uses(self, core: WorkingCache) -> None:
        try:
            await core.core.state.uses.flush()
            if self._access is not None:
                await self._access.tokens.flush()
        except NcpsError as error:
            self._log.warn("times of last use are lost: {reason}", reason=str(error))
