"""NcpsService: everything started in order, ready only when it can serve, stopped in order.

start   settings -> locks -> storage -> schema -> threads -> database -> key -> upstreams
        -> leases -> listen -> READY
stop    no new connections -> drain responses -> end downloads -> times of use -> upstreams
        -> leases -> database -> threads -> locks
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from ncps import __version__
from ncps.allocator import keep_large_blocks
from ncps.assembly.cluster import peer_clients
from ncps.assembly.core import Core, core
from ncps.assembly.databases import database_lock, dialect
from ncps.assembly.edge import site
from ncps.assembly.fetching import metrics, upstreaming
from ncps.assembly.keys import imported_key
from ncps.assembly.leases import Locking, locking
from ncps.assembly.parts import Adapters, adapters
from ncps.cache.identity import signing_key
from ncps.database import migrate
from ncps.database.dialects.base import Dialect
from ncps.database.lock import DatabaseLock
from ncps.endpoints import listen
from ncps.errors import NcpsError, StorageFull
from ncps.looplag import LoopLag
from ncps.settings.model import Settings
from ncps.storage.lock import StoreLock
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree
from ncps.tasks import Tasks, Ticker
from ncps.upstream.agent import Client
from ncps.upstream.peers import PeerClients
from ncps.web.site import NcpsSite

TOTALS_S = 30.0
USES_S = 60.0
INSPECTION_S = 30.0
AFTERMATH_S = 5.0
"""How long ends that should be quick may take, each."""


class NcpsService(Service):
    """See the module.

    :param reactor: runs everything; stopped when the start fails.
    :ivar failure: why the start failed, for the exit code.
    """

    _log = Logger()

    def __init__(self, settings: Settings, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - the operator's choice
        self.failure: NcpsError | None = None
        self._settings = settings
        self._reactor = reactor
        self._locks: list[StoreLock | DatabaseLock] = []
        self._tasks = Tasks(reactor)
        self._parts: Adapters | None = None
        self._core: Core | None = None
        self._clients: tuple[Client, ...] = ()
        self._peers: PeerClients | None = None
        self._agreed: Locking | None = None
        self._site: NcpsSite | None = None
        self._ports: list[IListeningPort] = []
        self._lag: LoopLag | None = None
        self._starting: Deferred[None] | None = None

    def check(self) -> None:
        """Take the locks, probe the storage, bring the schema up to date; before the reactor runs.

        Refused, StorageFull, Unavailable: what is wrong and what would be right.
        """
        cache = self._settings.cache
        self._parts = adapters(self._reactor, self._settings)
        imported_key(self._settings)
        self._probe(self._parts.stores.tree)
        store_lock = StoreLock(cache.storage.local)
        store_lock.acquire()
        self._locks.append(store_lock)
        engine = dialect(self._settings)
        engine.prepare()
        alone = database_lock(self._settings)
        if alone is not None:
            alone.acquire()
            self._locks.append(alone)
        for migration in migrate.up(engine):
            self._log.info(
                "applied migration {version} {name}", version=migration.version, name=migration.name
            )
        self._may_write(engine)
        self._probe(self._parts.stores.spools)
        places = {self._parts.stores.spools, self._parts.stores.tree.temps}
        swept = sum(temps.sweep() for temps in places)
        if swept:
            self._log.info("removed {count} unfinished files of dead processes", count=swept)

    def _may_write(self, engine: Dialect) -> None:
        """Look whether the database can be written; a full one still tells what is there."""
        try:
            migrate.probe(engine)
        except StorageFull as error:
            self._log.warn("{reason}: nothing new will be kept", reason=str(error))

    def _probe(self, place: Tree | Temps) -> None:
        """Look whether a place can be written; a full one still holds what can be served."""
        try:
            place.probe()
        except StorageFull as error:
            self._log.warn("{reason}: nothing new will be kept", reason=str(error))

    def privilegedStartService(self) -> None:
        """See `IService`: what can stop the start is looked at before anything runs."""
        try:
            if self._parts is None:
                self.check()
        except NcpsError as error:
            self.release_locks()
            self._log.critical("cannot start: {reason}", reason=str(error))
            raise SystemExit(1) from error

    def startService(self) -> None:
        """See `IService`."""
        self.privilegedStartService()  # `twist` does not
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    def _start_failed(self, failure: Any) -> None:
        error = failure.value
        if isinstance(error, NcpsError):
            self._log.critical("cannot start: {reason}", reason=str(error))
            self.failure = error
        else:
            self._log.failure("cannot start", failure)
            self.failure = NcpsError("an unexpected error")
        self._reactor.callWhenRunning(self._reactor.stop)

    async def _start(self) -> None:
        parts = self._parts
        assert parts is not None, "check() comes first"
        settings = self._settings
        keep_large_blocks()
        parts.workers.start()
        parts.database.open()
        counters = metrics(settings)
        key = await signing_key(
            parts.stores.config, settings.cache.hostname, imported_key(settings)
        )
        whom = upstreaming(self._reactor, settings, counters, self._tasks)
        self._clients = whom.clients
        self._peers = peer_clients(self._reactor, settings, counters)
        self._agreed = locking(
            self._reactor, settings, counters, address=settings.cluster.advertise_url
        )
        await self._agreed.start()
        self._core = core(
            self._reactor,
            settings,
            parts,
            whom,
            counters,
            self._tasks,
            key,
            self._peers,
            self._agreed,
        )
        whom.probes.start()

        async def count() -> None:
            totals = await parts.catalog.totals()
            counters.set_totals(totals, settings.cache.max_size_bytes)

        self._tick("totals", count, TOTALS_S)
        self._tick("inspection", self._core.inspection.run, INSPECTION_S)
        self._tick("times of use", self._core.uses.flush, USES_S)
        for ticker in self._core.upkeep.tickers:
            self._tasks.start(ticker.name, ticker.run())
        self._lag = LoopLag(self._reactor, counters.loop_lag.observe)
        self._lag.start()
        self._site = site(self._reactor, settings, self._core.cache, counters)
        for description in settings.server.addr:
            self._ports.append(await listen(self._reactor, description, self._site))
        self._log.info(
            "ncps {version} serves {hostname} on {addresses}, public key {key}",
            version=__version__,
            hostname=settings.cache.hostname,
            addresses=", ".join(_address(port) for port in self._ports),
            key=str(key.public),
        )
        notify("READY=1")

    def _tick(self, name: str, function: Any, interval_s: float) -> None:
        self._tasks.start(name, Ticker(self._reactor, name, function, interval_s).run())

    def stopService(self) -> Deferred[None]:
        """See `IService`: fires when everything has ended."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        notify("STOPPING=1")
        deadline = self._reactor.seconds() + self._settings.server.drain_timeout_s
        for port in self._ports:
            await _stopped(port)
        if self._site is not None:
            cut = await self._site.drain(max(0.0, deadline - self._reactor.seconds()))
            if cut:
                self._log.warn("{count} connections were cut at the deadline", count=cut)
        if self._lag is not None:
            self._lag.stop()
        await self._end_tasks(deadline)
        if self._core is not None:
            await self._flush_uses()
        for client in self._clients:
            await client.close()
        if self._peers is not None:
            await self._peers.close()
        if self._agreed is not None:
            await self._agreed.stop(AFTERMATH_S)
        if self._parts is not None:
            self._parts.database.close()
            await self._parts.workers.stop(AFTERMATH_S)
        self.release_locks()
        self._log.info("ncps has stopped")

    async def _end_tasks(self, deadline: float) -> None:
        """Let downloads end until the deadline; tickers never end by themselves."""
        core = self._core
        while core is not None and core.nars.arriving and self._reactor.seconds() < deadline:
            await _pause(self._reactor, 0.05)
        await self._tasks.stop(0.0)

    async def _flush_uses(self) -> None:
        assert self._core is not None
        try:
            await self._core.uses.flush()
        except NcpsError as error:
            self._log.warn("times of last use are lost: {reason}", reason=str(error))

    def release_locks(self) -> None:
        """Let another process have the store and the database; idempotent."""
        while self._locks:
            self._locks.pop().release()


async def _pause(reactor: Any, seconds: float) -> None:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    await waiting


async def _stopped(port: IListeningPort) -> None:
    ended = port.stopListening()
    if ended is not None:
        await ended


def _address(port: IListeningPort) -> str:
    where = port.getHost()
    host, number = getattr(where, "host", None), getattr(where, "port", 0)
    if host is None:
        return f"unix:{getattr(where, 'name', b'?')!r}"
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3)); never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError:
        pass


def serve(settings: Settings) -> int:
    """Run until told to stop; return the exit code."""
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    service = NcpsService(settings, reactor)
    try:
        service.check()
    except NcpsError as error:
        service.release_locks()
        sys.stderr.write(f"ncps: error: {error}\n")
        return 1
    run: Any = reactor
    run.addSystemEventTrigger("before", "shutdown", service.stopService)
    run.callWhenRunning(service.startService)
    run.run()
    return 0 if service.failure is None else 1
