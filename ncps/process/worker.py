"""A worker: one of several processes that serve, started and watched by a supervisor.

One environment variable contains its plan, and it inherits these descriptors:

    3   lifeline: orders to cut running work, or to apply other settings; its end means the end of
        the supervisor, and the worker then ends as well
    4   reports: READY=1 when it serves, FAILED= and the reason if it cannot, WATCHDOG=1 as a
        pulse, CHANGED= and a line about each change of a reload, TOOK=1 at the end of the reload
    5   settings, as the supervisor has read them: the same for all workers, early and late ones
    6   loads: the number of connections of each worker, in memory that all of them share
    7+  the daemon's locks, which are freed when the last of these processes ends; then listeners
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.ending import Ending
from ncps.aio.listening import listen
from ncps.aio.reactor import chosen_reactor
from ncps.aio.shared_port import Loads
from ncps.aio.signals import CUT_S, ignore_endings
from ncps.assembly.role import Entrance, Role, closed
from ncps.assembly.service import NcpsService
from ncps.assembly.siblings import SiblingClient
from ncps.assembly.systemd import Watchdog
from ncps.cli import WORKER
from ncps.errors import NcpsError, Refused
from ncps.observe import logs
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Collector
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.process.datagrams import DatagramNotices
from ncps.process.gathering import Gathering, Sibling
from ncps.process.listeners import Listener, enter
from ncps.process.nursery import call_process
from ncps.process.rundir import RunPaths, ensure
from ncps.settings.carried import unpack
from ncps.settings.schema.tree import Settings
from ncps.web.grammar import NarAnswers
from ncps.web.pages.inner import FIGURES, inner_site
from ncps.web.site import NcpsSite

LIFELINE, REPORTS, SETTINGS, LOADS, FIRST_LOCK = 3, 4, 5, 6, 7
FAILED, CHANGED, TOOK = b"FAILED=", b"CHANGED=", b"TOOK=1"
CUT, RELOAD = b"c", b"r"
"""The first byte of an order. After `RELOAD` follow 8 bytes with a length, and the settings."""
LONGEST_REPORT = 2048  # bytes; fewer than a pipe takes in one write
ASK_S = 1.0
"""Seconds that a sibling may take to send its metrics."""
ORPHAN_DRAIN_S = 1.0
ORPHAN_END_S = 10.0
_log = Logger()


@frozen(kw_only=True)
class Plan:
    """The facts about a worker and its siblings, from the supervisor.

    :param number: from 1 to `count`.
    :param life: number of this process in that place, from 1.
    :param run: the run directory.
    :param locks: how many descriptors of locks it inherits.
    :param watchdog_s: seconds without a pulse after which the supervisor replaces it; 0 for never.
    """

    number: int
    count: int
    life: int
    run: str
    via: str
    locks: int
    listeners: tuple[Listener, ...]
    watchdog_s: float = 0.0

    def render(self) -> str:
        """Return the text for the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Plan:
        """Remove the plan from the environment, and return it. Raises Refused if it is invalid."""
        try:
            found = json.loads(environ.pop(WORKER))
            listeners = tuple(Listener(**listener) for listener in found.pop("listeners"))
            return cls(**found, listeners=listeners)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"{WORKER} is only for workers: leave it out") from error

    def descriptors(self) -> list[int]:
        """Return the descriptors that this process inherits beside the standard streams."""
        locks = range(FIRST_LOCK, FIRST_LOCK + self.locks)
        return [
            LIFELINE,
            REPORTS,
            SETTINGS,
            LOADS,
            *locks,
            *(listener.fd for listener in self.listeners),
        ]


class Member(Role):
    """The place of a worker among its siblings."""

    def __init__(self, plan: Plan, reactor: Any) -> None:
        self._plan = plan
        self._reactor = reactor
        self._paths = paths = RunPaths(Path(plan.run))
        self._others = [n for n in range(1, plan.count + 1) if n != plan.number]
        self._gathering: Gathering | None = None
        self._inner: tuple[IListeningPort, NcpsSite] | None = None
        self._site: NcpsSite | None = None
        self._clients = {
            number: SiblingClient(reactor, paths.socket(number), ASK_S) for number in self._others
        }
        self._notices = DatagramNotices(
            reactor, paths.notices(plan.number), [paths.notices(n) for n in self._others]
        )
        self.via = plan.via
        self.pid = os.getppid()
        self.address = paths.address(plan.number)
        self.siblings = tuple(paths.address(n) for n in self._others)
        self.is_in_charge = False
        self.notices = self._notices
        self.leases = paths.leases
        self.gather: Callable[[], Awaitable[Collector]] | None = None
        self.watchdog = Watchdog(plan.watchdog_s)

    def begin(self, metrics: Metrics) -> None:
        """See `Role`."""
        paths = self._paths
        ensure(paths.path)  # it may be gone together with the last worker that could make it again
        siblings = [
            Sibling(ask=partial(self._clients[number].ask, FIGURES), shown=paths.figures(number))
            for number in self._others
        ]
        metrics.workers.set(self._plan.count)
        self._gathering = Gathering(metrics, paths.figures(self._plan.number), siblings)
        self._gathering.count_lives(self._plan.life)
        self.gather = self._gathering.all
        self._notices.open()

    async def enter(self, peers: NarAnswers, tracer: Tracer = NO_TRACER) -> None:
        """See `Role`."""
        assert self._gathering is not None, "begin() comes first"
        self._site = inner_site(self._reactor, self._gathering.own, peers)
        self._site.tracer = tracer
        await self._listen(self._site)

    async def _listen(self, site: NcpsSite) -> None:
        path = self._paths.socket(self._plan.number)
        path.unlink(missing_ok=True)  # the socket of a predecessor
        description = f"unix:{path}:mode=600:lockfile=0:backlog=64"
        self._inner = await listen(self._reactor, description, site), site

    async def mend(self) -> None:
        """See `Role`."""
        paths, number = self._paths, self._plan.number
        if self._site is None or all(
            path.exists() for path in (paths.socket(number), paths.notices(number))
        ):
            return
        ensure(paths.path)
        if self._inner is not None:
            port, _ = self._inner
            self._inner = None
            await closed(port)
        await self._notices.reopen()
        await self._listen(self._site)
        _log.warn("the run directory {path} was removed and is made again", path=str(paths.path))

    async def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[Entrance]:
        """See `Role`: listen at the addresses that the supervisor has bound."""
        del settings
        loads = Loads(LOADS, self._plan.count, self._plan.number - 1)
        site.tell_count = loads.tell
        for listener in self._plan.listeners:
            yield Entrance(enter(self._reactor, listener, site, loads), listener.is_encrypted)

    def tell(self, *lines: str) -> None:
        """See `Role`: send lines to the supervisor, which does not forward them."""
        for line in lines:
            with suppress(OSError):  # the supervisor has ended, or does not read
                os.write(REPORTS, f"{line}\n".encode())

    async def leave(self, ending: Ending) -> None:
        """See `Role`."""
        self._site = None
        if self._inner is not None:
            port, site = self._inner
            self._inner = None
            await closed(port)
            ending.on_cut(site.cut)
            await site.drain(ending.left_s)
        for client in self._clients.values():
            await client.close()
        await self._notices.close()


def reload_order(settings: bytes) -> bytes:
    """Return the order to apply other settings."""
    return RELOAD + len(settings).to_bytes(8) + settings


_ORDER = len(reload_order(b""))


@implementer(IReadDescriptor)
class Lifeline:
    """The pipe with the orders of the supervisor; its end is the end of the supervisor."""

    def __init__(
        self,
        gone: Callable[[], object],
        cut: Callable[[], object],
        take: Callable[[bytes], object],
    ) -> None:
        self._gone = gone
        self._cut = cut
        self._take = take
        self._data = b""

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return LIFELINE

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "lifeline"

    def doRead(self) -> Failure | None:
        """See `IReadDescriptor`: read orders, or the end of the pipe."""
        data = os.read(LIFELINE, 65536)
        if not data:
            return Failure(ConnectionDone())
        self.receive(data)
        return None

    def receive(self, data: bytes) -> None:
        """Follow all orders that have completely arrived."""
        self._data += data
        while self._data:
            if not self._data.startswith(RELOAD):
                self._data = self._data[1:]
                self._cut()
                continue
            end = _ORDER + int.from_bytes(self._data[1:_ORDER])
            if len(self._data) < max(_ORDER, end):
                return
            settings, self._data = self._data[_ORDER:end], self._data[end:]
            self._take(settings)

    def connectionLost(self, reason: Failure) -> None:
        """See `IFileDescriptor`; the reactor also calls this at its own end."""
        if reason.check(ConnectionDone) is not None:
            self._gone()


def _settings() -> Settings:
    """Read the settings that the supervisor has written."""
    size = os.fstat(SETTINGS).st_size
    # All workers share the offset of this descriptor, so none may move it.
    found = unpack(os.pread(SETTINGS, size, 0))
    os.close(SETTINGS)
    return found


class _Orders:
    """The orders of the supervisor; most of them end the process."""

    def __init__(self, reactor: Any, service: NcpsService, role: Role) -> None:
        self._reactor = reactor
        self._service = service
        self._role = role

    def follow(self) -> None:
        """Follow the orders of the supervisor from now on.

        A terminal or systemd may send a signal to all processes, and the supervisor sends another
        one. So a second signal here is not a second order to stop.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._stop))
        self._reactor.addReader(Lifeline(self._orphaned, self._cut, self._take))

    def _stop(self) -> None:
        if self._reactor.running:
            with suppress(ReactorNotRunning):
                self._reactor.stop()

    def _cut(self) -> None:
        self._service.ending.cut()
        # As `signals` does it in a single process.
        self._reactor.callLater(CUT_S, os._exit, 1)
        self._stop()

    def _take(self, settings: bytes) -> None:
        taking = Deferred.fromCoroutine(self._go_on(unpack(settings)))
        taking.addErrback(lambda failure: _log.failure("cannot take other settings", failure))

    async def _go_on(self, settings: Settings) -> None:
        lines = await self._service.take(settings)
        self._role.tell(*(f"CHANGED={' '.join(line.split())}" for line in lines), "TOOK=1")

    def _orphaned(self) -> None:
        _log.error("the supervisor is gone: this worker ends")
        self._service.ending.hurry(ORPHAN_DRAIN_S)
        self._reactor.callLater(ORPHAN_DRAIN_S, self._service.ending.cut)
        # No supervisor can kill a worker that does not end, and the worker holds the locks.
        self._reactor.callLater(ORPHAN_END_S, os._exit, 1)
        self._stop()


def work() -> int:
    """Run the worker that the environment describes; return the exit code."""
    plan = Plan.take(os.environ)
    call_process(f"ncps worker {plan.number}")
    for fd in plan.descriptors():
        os.set_inheritable(fd, False)
    os.set_blocking(REPORTS, False)  # a supervisor that hangs must not stop its workers
    settings = _settings()
    logs.start_logging(
        settings.log.level,
        sys.stdout,
        human=settings.log.console_writer_enabled,
        prefix=settings.log.console_writer_prefix,
        worker=plan.number,
        is_queued=True,
    )
    reactor = chosen_reactor()
    is_first = plan.life == 1  # the supervisor logs its failure, which is that of the start
    role = Member(plan, reactor)
    service = NcpsService(settings, reactor, role, logs_failure=not is_first)
    try:
        service.check()
    except NcpsError as error:
        if not is_first:
            _log.critical("cannot start: {reason}", reason=str(error))
        report_failure(error)
        return 1

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # only the supervisor acts on them
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(_Orders(reactor, service, role).follow)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    ignore_endings()
    if service.failure is not None:
        report_failure(service.failure)
        return 1
    return 0


def report_failure(error: NcpsError) -> None:
    """Send the supervisor the reason why this worker cannot start, in one line."""
    text = " ".join(str(error).split()).encode("utf-8", "replace")
    with suppress(OSError):
        os.write(REPORTS, FAILED + text[: LONGEST_REPORT - len(FAILED) - 1] + b"\n")
