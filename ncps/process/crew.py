"""The crew: a supervisor process and its workers.

The supervisor reads the settings, takes the locks, brings the schema up to date, opens the doors
and starts the workers; it serves nothing itself. Start-up errors are told as one process tells
them. The workers go with it, however it ends.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ncps import __version__
from ncps.aio.signals import CUT_S, hear_no_more, hear_signals, ignore_others
from ncps.assembly.role import address_of, closed, new_name, notify
from ncps.assembly.service import NcpsService
from ncps.cli import WORKER
from ncps.errors import NcpsError, Refused
from ncps.process import rundir
from ncps.process.listeners import Listeners
from ncps.process.rundir import RunDirectory
from ncps.process.supervisor import Process, Supervisor, Watch
from ncps.process.worker import (
    FAILED,
    FIRST_LOCK,
    LIFELINE,
    LONGEST_REPORT,
    REPORTS,
    SETTINGS,
    Plan,
)
from ncps.settings.carried import pack
from ncps.settings.schema.tree import Settings

AFTERMATH_S = 20.0
"""How long a worker may take to end beyond the drain deadline, before it is killed."""
_OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_OF_SOCKETS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class _Line(ProcessProtocol):
    """Hears what a worker reports, line by line, and of its end."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._said = b""
        self._why = ""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See `ProcessProtocol`."""
        if childFD != REPORTS:
            return
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-LONGEST_REPORT:]
        for line in lines:
            if line == b"READY=1":
                self._watch.ready()
            elif line.startswith(FAILED):
                self._why = line.removeprefix(FAILED).decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """See `ProcessProtocol`."""
        self._watch.ended(_how(reason.value), self._why)


def _how(reason: BaseException | None) -> str:
    if isinstance(reason, ProcessDone):
        return "exit code 0"
    if isinstance(reason, ProcessTerminated):
        if reason.signal is not None:
            return f"signal {reason.signal}"
        return f"exit code {reason.exitCode}"
    return str(reason)


@frozen
class _Running(Process):
    """A worker's process."""

    transport: Any

    @property
    def pid(self) -> int:
        return int(self.transport.pid)

    def signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def cut(self) -> None:
        self.transport.writeToChild(LIFELINE, b"c")


class Crew:
    """A supervisor's process.

    :param premises: has taken the locks; its `check` was called.
    :ivar failure: why the start failed.
    """

    _log = Logger()

    def __init__(self, settings: Settings, reactor: Any, premises: NcpsService) -> None:
        self.failure: NcpsError | None = None
        self._settings = settings
        self._reactor = reactor
        self._premises = premises
        self._doors = Listeners(reactor)
        self._via = new_name()
        self._directory: RunDirectory | None = None
        self._files: list[int] = []
        self._supervisor = Supervisor(reactor, settings.server.workers, self._spawn)

    def start(self) -> None:
        """Start, and end the reactor where that fails."""
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        settings = self._settings
        self._directory = rundir.make(rundir.parents(os.environ))
        await self._doors.open(settings.server.addr)
        self._files = [os.open(os.devnull, os.O_RDWR), _written(settings)]
        await self._supervisor.start()
        if self._supervisor.is_stopping:
            return
        self._log.info(
            "ncps {version} has {count} workers on {addresses}",
            version=__version__,
            count=settings.server.workers,
            addresses=", ".join(address_of(port) for port in self._doors.ports),
        )
        notify("READY=1")

    def _start_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, NcpsError):
            self.failure = failure.value
        else:
            self._log.failure("cannot start", failure)
            self.failure = NcpsError("an unexpected error, of which the log has more")
        self._reactor.callWhenRunning(self._reactor.stop)

    def _spawn(self, number: int, life: int, watch: Watch) -> Process:
        assert self._directory is not None, "made before the first worker"
        null, written = self._files
        locks = [*self._premises.lock_fds, self._directory.lock.fd]
        fds: dict[int, Any] = {0: null, 1: 1, 2: 2, LIFELINE: "w", REPORTS: "r", SETTINGS: written}
        fds |= dict(enumerate(locks, FIRST_LOCK))
        doors = []
        for door in self._doors.doors:
            if door.fd >= 0:
                at = len(fds)
                fds[at] = door.fd
                door = evolve(door, fd=at)  # noqa: PLW2901 - the same door, seen from within
            doors.append(door)
        plan = Plan(
            number=number,
            count=self._settings.server.workers,
            life=life,
            run=str(self._directory.path),
            via=self._via,
            locks=len(locks),
            doors=tuple(doors),
        )
        transport = self._reactor.spawnProcess(
            _Line(watch),
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],  # for those who look at the list of processes
            _environment(os.environ, plan),
            childFDs=fds,
        )
        return _Running(transport)

    def stop(self) -> Deferred[None]:
        """End everything; fires when it has ended."""
        stopped = Deferred.fromCoroutine(self._stop())
        return stopped.addErrback(lambda failure: self._log.failure("cannot stop", failure))

    def cut(self) -> None:
        """Let the end, which `stop` has begun, wait for nothing that runs."""
        self._supervisor.cut(CUT_S + 1.0)

    async def _stop(self) -> None:
        server = self._settings.server
        drain_s = server.drain_delay_s + server.drain_timeout_s
        notify("STOPPING=1")
        self._log.info(
            "stopping {count} workers, up to {seconds} s; a second signal cuts what they do",
            count=self._supervisor.running,
            seconds=drain_s,
        )
        await self._supervisor.stop(drain_s + AFTERMATH_S)
        for port in self._doors.ports:
            await closed(port)
        if self._directory is not None:
            self._directory.remove()
        for fd in self._files:
            os.close(fd)
        self._premises.release_locks()
        if self.failure is None:
            self._log.info("the supervisor has stopped")


def _environment(environ: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """What a worker sees: it has no word with systemd of its own."""
    found = {k: v for k, v in environ.items() if k not in {*_OF_SYSTEMD, *_OF_SOCKETS}}
    return found | {WORKER: plan.render()}


def _written(settings: Settings) -> int:
    """Return a descriptor that workers read their settings from; on no disk, for their secrets."""
    cluster = settings.cluster
    if not cluster.secret:  # the workers need one among themselves
        cluster = evolve(cluster, secret=secrets.token_hex(32))
    plain = evolve(settings.share(), cluster=cluster)
    fd = os.memfd_create("ncps-settings")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(pack(plain))
    return fd


def serve(settings: Settings) -> int:
    """Run with workers until told to stop; return the exit code. NcpsError: it could not start."""
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    run: Any = reactor
    ignore_others(run)
    premises = NcpsService(settings, run)
    try:
        if WORKER in os.environ:
            raise Refused(f"{WORKER} is for workers alone: leave it out")
        if not hasattr(os, "memfd_create") or not sys.executable:
            raise Refused("server-workers: more than one worker needs Linux")
        premises.check()
    except NcpsError:
        premises.release_locks()
        raise
    crew = Crew(settings, reactor, premises)
    hear_signals(run, crew.cut, cut_s=2 * CUT_S)
    run.addSystemEventTrigger("before", "shutdown", crew.stop)
    run.callWhenRunning(crew.start)
    run.run()
    hear_no_more()
    if crew.failure is not None:
        raise crew.failure
    return 0
