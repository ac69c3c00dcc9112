"""A worker: one of several processes that serve, started and watched by a supervisor.

It is told what it is by one environment variable, and inherits what it needs as descriptors:

    3   lifeline: a byte says to cut what still runs; its end is the supervisor's end, and that
        of the worker
    4   reports: READY=1 when it serves, FAILED= and why if it cannot
    5   settings, as the supervisor has read them: all workers have the same, whenever they start
    6+  the daemon's locks, which are free when the last process that has them is gone; then doors
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
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ncps.aio.ending import Ending
from ncps.aio.listening import listen
from ncps.aio.reactor import chosen_reactor
from ncps.aio.signals import CUT_S, hear_no_more
from ncps.assembly.role import Role, closed
from ncps.assembly.service import NcpsService
from ncps.assembly.siblings import SiblingClient
from ncps.cli import WORKER
from ncps.errors import NcpsError, Refused
from ncps.observe import logs
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Collector
from ncps.process.datagrams import DatagramNotices
from ncps.process.gathering import Gathering, Sibling
from ncps.process.listeners import Listener, enter
from ncps.process.rundir import Rooms, ensure
from ncps.settings.carried import unpack
from ncps.settings.schema.tree import Settings
from ncps.web.pages.inner import FIGURES, inner_site
from ncps.web.routes import NarAnswers
from ncps.web.site import NcpsSite

LIFELINE, REPORTS, SETTINGS, FIRST_LOCK = 3, 4, 5, 6
FAILED = b"FAILED="
LONGEST_REPORT = 2048  # bytes; a pipe takes them at once
ASK_S = 1.0
"""How long a sibling may take to tell its figures."""
ORPHAN_DRAIN_S = 1.0
ORPHAN_END_S = 10.0
_log = Logger()


@frozen(kw_only=True)
class Plan:
    """What a worker is told of itself and its siblings.

    :param number: from 1 to `count`.
    :param life: which process this is in that place, from 1.
    :param run: the run directory.
    :param locks: how many descriptors of locks it inherits.
    """

    number: int
    count: int
    life: int
    run: str
    via: str
    locks: int
    doors: tuple[Listener, ...]

    def render(self) -> str:
        """Write for the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Plan:
        """Read it from the environment, and leave nothing there. Refused."""
        try:
            found = json.loads(environ.pop(WORKER))
            doors = tuple(Listener(**door) for door in found.pop("doors"))
            return cls(**found, doors=doors)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"{WORKER} is for workers alone: leave it out") from error

    def descriptors(self) -> list[int]:
        """What this process inherits beyond standard streams."""
        doors = [door.fd for door in self.doors if door.fd >= 0]
        return [LIFELINE, REPORTS, SETTINGS, *range(FIRST_LOCK, FIRST_LOCK + self.locks), *doors]


class Member(Role):
    """The place of a worker among its siblings."""

    def __init__(self, plan: Plan, reactor: Any) -> None:
        self._plan = plan
        self._reactor = reactor
        self._rooms = rooms = Rooms(Path(plan.run))
        self._others = [n for n in range(1, plan.count + 1) if n != plan.number]
        self._gathering: Gathering | None = None
        self._inner: tuple[IListeningPort, NcpsSite] | None = None
        self._site: NcpsSite | None = None
        self._clients = {
            number: SiblingClient(reactor, rooms.socket(number), ASK_S) for number in self._others
        }
        self._notices = DatagramNotices(
            reactor, rooms.notices(plan.number), [rooms.notices(n) for n in self._others]
        )
        self.via = plan.via
        self.pid = os.getppid()
        self.address = rooms.address(plan.number)
        self.siblings = tuple(rooms.address(n) for n in self._others)
        self.is_in_charge = False
        self.notices = self._notices
        self.leases = rooms.leases
        self.gather: Callable[[], Awaitable[Collector]] | None = None

    def begin(self, metrics: Metrics) -> None:
        """See `Role`."""
        rooms = self._rooms
        ensure(rooms.path)  # it may be gone together with the last worker that could make it again
        siblings = [
            Sibling(ask=partial(self._clients[number].ask, FIGURES), shown=rooms.figures(number))
            for number in self._others
        ]
        metrics.workers.set(self._plan.count)
        self._gathering = Gathering(metrics, rooms.figures(self._plan.number), siblings)
        self._gathering.count_lives(self._plan.life)
        self.gather = self._gathering.all
        self._notices.open()

    async def enter(self, peers: NarAnswers) -> None:
        """See `Role`."""
        assert self._gathering is not None, "begin() comes first"
        self._site = inner_site(self._reactor, self._gathering.own, peers)
        await self._listen(self._site)

    async def _listen(self, site: NcpsSite) -> None:
        path = self._rooms.socket(self._plan.number)
        path.unlink(missing_ok=True)  # what a predecessor left
        description = f"unix:{path}:mode=600:lockfile=0:backlog=64"
        self._inner = await listen(self._reactor, description, site), site

    async def mend(self) -> None:
        """See `Role`."""
        rooms, number = self._rooms, self._plan.number
        if self._site is None or all(
            path.exists() for path in (rooms.socket(number), rooms.notices(number))
        ):
            return
        ensure(rooms.path)
        if self._inner is not None:
            port, _ = self._inner
            self._inner = None
            await closed(port)
        await self._notices.reopen()
        await self._listen(self._site)
        _log.warn("the run directory {path} was removed, and is made again", path=str(rooms.path))

    async def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[IListeningPort]:
        """See `Role`: at the doors that the supervisor has opened."""
        del settings
        for door in self._plan.doors:
            yield enter(self._reactor, door, site)

    def tell(self, state: str) -> None:
        """See `Role`."""
        with suppress(OSError):
            os.write(REPORTS, f"{state}\n".encode())

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


@implementer(IReadDescriptor)
class _Lifeline:
    """Tells when the supervisor is gone."""

    def __init__(self, gone: Callable[[], object], cut: Callable[[], object]) -> None:
        self._gone = gone
        self._cut = cut

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return LIFELINE

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "lifeline"

    def doRead(self) -> Failure | None:
        """See `IReadDescriptor`: whatever is sent says to cut; nothing at all is the end."""
        if not os.read(LIFELINE, 64):
            return Failure(ConnectionDone())
        self._cut()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """See `IFileDescriptor`; the reactor lets go of everything when it has stopped, too."""
        if reason.check(ConnectionDone) is not None:
            self._gone()


def _settings() -> Settings:
    """Read what the supervisor has written into our descriptor."""
    size = os.fstat(SETTINGS).st_size
    # The offset is shared by all workers, so nobody moves it.
    found = unpack(os.pread(SETTINGS, size, 0))
    os.close(SETTINGS)
    return found


def work() -> int:
    """Be the worker that the environment says; return the exit code."""
    plan = Plan.take(os.environ)
    for fd in plan.descriptors():
        os.set_inheritable(fd, False)
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
    is_first = plan.life == 1  # whose failure the supervisor tells: it is that of the start
    service = NcpsService(settings, reactor, Member(plan, reactor), logs_failure=not is_first)
    try:
        service.check()
    except NcpsError as error:
        if not is_first:
            _log.critical("cannot start: {reason}", reason=str(error))
        report_failure(error)
        return 1

    def stop() -> None:
        if reactor.running:
            with suppress(ReactorNotRunning):
                reactor.stop()

    def cut() -> None:
        service.ending.cut()
        reactor.callLater(CUT_S, os._exit, 1)  # as `signals` does it in a process that is alone
        stop()

    def orphaned() -> None:
        _log.error("the supervisor is gone: this worker ends")
        service.ending.hurry(ORPHAN_DRAIN_S)
        reactor.callLater(ORPHAN_DRAIN_S, service.ending.cut)
        # Nobody is left to kill a worker that does not end, and it holds the locks.
        reactor.callLater(ORPHAN_END_S, os._exit, 1)
        stop()

    def heed() -> None:
        # The supervisor says when to end. A terminal, or systemd, may say so to all at once, so
        # that a second signal here is no second signal there.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop))
        reactor.addReader(_Lifeline(orphaned, cut))

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the supervisor says a word about them
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(heed)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    hear_no_more()
    if service.failure is not None:
        report_failure(service.failure)
        return 1
    return 0


def report_failure(error: NcpsError) -> None:
    """Tell the supervisor why this worker cannot start, in one line."""
    text = " ".join(str(error).split()).encode("utf-8", "replace")
    with suppress(OSError):
        os.write(REPORTS, FAILED + text[: LONGEST_REPORT - len(FAILED) - 1] + b"\n")
