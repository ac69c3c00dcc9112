"""The crew: a supervisor process and its workers.

The supervisor reads the settings, takes the locks, brings the schema up to date, binds the
addresses and starts the workers (`nursery`). It serves no request itself. Errors at the start look
like those of a single process. The workers end with the supervisor, even if it is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ncps import __version__
from ncps.aio.shared_port import Loads, size_of
from ncps.aio.signals import CUT_S, handle_signals, ignore_endings, ignore_others
from ncps.aio.waiting import within
from ncps.assembly.reload import TROUBLE, Reload
from ncps.assembly.role import closed, new_name
from ncps.assembly.service import NcpsService
from ncps.assembly.systemd import Pulse, Watchdog, notify, status, stopping
from ncps.cli import WORKER, start_logging
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.observe import log_levels
from ncps.process import rundir
from ncps.process.forked import ForkedProcess, forked
from ncps.process.listeners import Listeners
from ncps.process.nursery import (
    NoNursery,
    Nursery,
    begin,
    import_adapters,
    worker_environment,
)
from ncps.process.rundir import RunDirectory
from ncps.process.supervisor import Process, Supervisor, Watch
from ncps.process.worker import (
    CHANGED,
    CUT,
    FAILED,
    FIRST_LOCK,
    LIFELINE,
    LOADS,
    LONGEST_REPORT,
    REPORTS,
    SETTINGS,
    TOOK,
    Plan,
    reload_order,
    work,
)
from ncps.settings.carried import pack
from ncps.settings.schema.tree import Settings

MOST_CHANGES = 1000
"""Lines about one reload that a worker may send."""
SHARES_NOTHING = "new workers take more time and memory until ncps is started again"
TAKE_S = 30.0
"""Seconds that all workers together have to apply other settings."""
AFTERMATH_S = 20.0
"""Seconds beyond the drain deadline after which a worker is killed."""


class _Line(ProcessProtocol):
    """The pipe with the reports of a worker, line by line; it also learns of the worker's end.

    :param gone: called first when the worker has ended.
    """

    def __init__(self, watch: Watch, gone: Callable[[], object]) -> None:
        self._watch = watch
        self._gone = gone
        self._said = b""
        self._why = ""
        self._changes: list[str] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See `ProcessProtocol`."""
        if childFD != REPORTS:
            return
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-LONGEST_REPORT:]
        for line in lines:
            if line == b"READY=1":
                self._watch.ready()
            elif line == b"WATCHDOG=1":
                self._watch.pulse()
            elif line.startswith(CHANGED):
                self._changes.append(line.removeprefix(CHANGED).decode("utf-8", "replace"))
                del self._changes[:-MOST_CHANGES]
            elif line == TOOK:
                changes, self._changes = self._changes, []
                self._watch.took(changes)
            elif line.startswith(FAILED):
                self._why = line.removeprefix(FAILED).decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """See `ProcessProtocol`."""
        self._gone()
        self._watch.ended(_how(reason.value), self._why)


class _NurseryEnd(ProcessProtocol):
    """The process of the nursery, which should not end before the supervisor."""

    _log = Logger()

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def processEnded(self, reason: Failure) -> None:
        """See `ProcessProtocol`."""
        if self._nursery.is_open:
            self._nursery.close()
            self._log.warn(
                "the process from which workers are forked ended with {how}: {shares}",
                how=_how(reason.value),
                shares=SHARES_NOTHING,
            )


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
            self.transport.signalProcess(signal.Signals[f"SIG{name}"])

    def give(self, settings: bytes) -> None:
        self.transport.writeToChild(LIFELINE, reload_order(settings))

    def cut(self) -> None:
        self.transport.writeToChild(LIFELINE, CUT)


class Crew:
    """The process of a supervisor.

    :param premises: the service that has taken the locks; its `check` was called.
    :param nursery: forks workers; if it cannot, they are started as programs.
    :ivar failure: the error of a start that failed.
    """

    _log = Logger()

    def __init__(
        self, settings: Settings, reactor: Any, premises: NcpsService, nursery: Nursery
    ) -> None:
        self.failure: NcpsError | None = None
        self._settings = settings
        self._reactor = reactor
        self._premises = premises
        self._nursery = nursery
        self._listeners = Listeners(reactor)
        self._via = new_name()
        self._directory: RunDirectory | None = None
        self._files: list[int] = []
        self._loads: Loads | None = None
        self._secret = settings.cluster.secret or secrets.token_hex(32)
        self.reload = Reload(reactor, settings, take=self._take, tell=notify, status=self._status)
        self._supervisor = Supervisor(reactor, settings.server.workers, self._spawn)
        self._watchdog = Watchdog.of(os.environ, os.getpid())
        self._pulse = Pulse(reactor, self._watchdog.pulse_s, self._beat)
        self._beaten = 0.0

    def start(self) -> None:
        """Start, and stop the reactor if that fails."""
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        settings = self._settings
        if self._nursery.pid:
            ForkedProcess(self._reactor, _NurseryEnd(self._nursery), self._nursery.pid, {}, {})
        self._directory = rundir.make(rundir.parents(os.environ))
        await self._listeners.open(settings.server.addr)
        workers = settings.server.workers
        loads = _written(bytes(size_of(workers)))
        self._files = [os.open(os.devnull, os.O_RDWR), _written(self._packed(settings)), loads]
        self._loads = Loads(loads, workers)
        await self._supervisor.start()
        if self._supervisor.is_stopping:
            return
        self._log.info(
            "ncps {version} has {count} workers on {addresses}",
            version=__version__,
            count=settings.server.workers,
            addresses=", ".join(entrance.address for entrance in self._listeners.entrances),
        )
        self._supervisor.changed = self._tell_status
        notify("READY=1", self._status(), *self._watchdog.prepare())
        self._beaten = self._reactor.seconds()
        self._pulse.start()
        self.reload.start()

    def _packed(self, settings: Settings) -> bytes:
        """Return the settings for workers, with the secret that they share."""
        cluster = evolve(settings.cluster, secret=self._secret)
        return pack(evolve(settings.share(), cluster=cluster, given={}))

    async def _take(self, settings: Settings) -> list[str]:
        """Apply other settings; return lines about changes that the settings do not show."""
        log_levels.change_level(settings.log.level)
        packed = self._packed(settings)
        self._settings, former = settings, self._files[1]
        self._files[1] = _written(packed)
        os.close(former)
        lines: dict[str, None] = {}
        end = self._reactor.seconds() + TAKE_S
        for number, taking in self._supervisor.give(packed).items():
            late = f"worker {number} has not taken the settings within {TAKE_S:g} s"
            left_s = max(0.0, end - self._reactor.seconds())
            try:
                lines |= dict.fromkeys(await within(self._reactor, left_s, taking.wait(), late))
            except Unavailable as error:
                lines[f"{TROUBLE}{error}"] = None
        return list(lines)

    def _status(self) -> str:
        serving, count = self._supervisor.serving, self._settings.server.workers
        addresses = ", ".join(entrance.address for entrance in self._listeners.entrances)
        return status(f"{serving} of {count} workers serve {addresses}")

    def _tell_status(self) -> None:
        if not self._supervisor.is_stopping:
            notify(self._status())

    def _beat(self) -> None:
        """End workers that hang, then give a pulse; the other workers continue to serve."""
        now, before = self._reactor.seconds(), self._beaten
        self._beaten = now
        if now - before < 2 * self._watchdog.pulse_s:  # else their pulses may still be unread
            self._supervisor.end_stalled(self._watchdog.patience_s)
        notify("WATCHDOG=1")

    def _start_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, NcpsError):
            self.failure = failure.value
        else:
            self._log.failure("cannot start", failure)
            self.failure = NcpsError("an unexpected error; the log says more")
        self._reactor.callWhenRunning(self._reactor.stop)

    def _spawn(self, number: int, life: int, watch: Watch) -> Process:
        assert self._directory is not None, "made before the first worker"
        assert self._loads is not None, "made before the first worker"
        null, written, loads = self._files
        locks = [*self._premises.lock_fds, self._directory.lock.fd]
        fds: dict[int, Any] = {0: null, 1: 1, 2: 2, LIFELINE: "w", REPORTS: "r", SETTINGS: written}
        fds[LOADS] = loads
        fds |= dict(enumerate(locks, FIRST_LOCK))
        listeners = []
        for listener in self._listeners.opened:
            at = len(fds)
            fds[at] = listener.fd
            listeners.append(evolve(listener, fd=at))
        plan = Plan(
            number=number,
            count=self._settings.server.workers,
            life=life,
            run=str(self._directory.path),
            via=self._via,
            locks=len(locks),
            listeners=tuple(listeners),
            watchdog_s=self._watchdog.patience_s,
        )
        line = _Line(watch, partial(self._loads.leave, number - 1))
        return _Running(self._begun(line, plan.render(), fds))

    def _begun(self, line: _Line, plan: str, fds: dict[int, Any]) -> Any:
        """Start a worker's process, and return its transport. Raises OSError if that fails."""
        was_open = self._nursery.is_open
        try:
            return forked(self._reactor, self._nursery, line, plan, fds)
        except NoNursery:
            if was_open:
                self._log.warn("a worker could not be forked: {shares}", shares=SHARES_NOTHING)
            return self._reactor.spawnProcess(
                line,
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],  # for people who read the process list
                worker_environment(os.environ, plan),
                childFDs=fds,
            )

    def stop(self) -> Deferred[None]:
        """End all workers; the Deferred fires when they have ended."""
        stopped = Deferred.fromCoroutine(self._stop())
        return stopped.addErrback(lambda failure: self._log.failure("cannot stop", failure))

    def cut(self) -> None:
        """Cut all running work, after `stop` has begun the end."""
        self._supervisor.cut(CUT_S + 1.0)

    async def _stop(self) -> None:
        server = self._settings.server
        drain_s = server.drain_delay_s + server.drain_timeout_s
        await self.reload.stop()
        notify(*stopping(drain_s + AFTERMATH_S))
        self._log.info(
            "stopping {count} workers, up to {seconds} s; a second signal cuts their answers",
            count=self._supervisor.running,
            seconds=drain_s,
        )
        await self._supervisor.stop(drain_s + AFTERMATH_S)
        self._nursery.close()
        self._pulse.stop()
        for entrance in self._listeners.entrances:
            await closed(entrance.port)
        if self._directory is not None:
            self._directory.remove()
        for fd in self._files:
            os.close(fd)
        self._premises.release_locks()
        if self.failure is None:
            self._log.info("the supervisor has stopped")


def _written(packed: bytes) -> int:
    """Return a descriptor from which workers read these bytes; in memory, because of secrets."""
    fd = os.memfd_create("ncps-settings")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(packed)
    return fd


def serve(settings: Settings) -> int:
    """Run with workers until a signal; return the exit code. Raises NcpsError if that fails.

    A forked worker also returns from here, with its own exit code.
    """
    can_be = hasattr(os, "memfd_create") and bool(sys.executable)
    import_adapters(settings)
    nursery = begin() if can_be else Nursery()  # before the log starts its thread
    if nursery is None:
        return work()
    start_logging(settings, is_daemon=True)
    try:
        return _supervise(settings, nursery, can_be=can_be)
    finally:
        nursery.close()


def _supervise(settings: Settings, nursery: Nursery, *, can_be: bool) -> int:
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    run: Any = reactor
    premises = NcpsService(settings, run)
    crew = Crew(settings, reactor, premises, nursery)
    ignore_others(run, crew.reload.ask)
    try:
        if WORKER in os.environ:
            raise Refused(f"{WORKER} is only for workers: leave it out")
        if not can_be:
            raise Refused("server-workers: more than one worker needs Linux")
        premises.check()
    except NcpsError:
        premises.release_locks()
        raise
    handle_signals(run, crew.cut, crew.reload.ask, cut_s=2 * CUT_S)
    run.addSystemEventTrigger("before", "shutdown", crew.stop)
    run.callWhenRunning(crew.start)
    run.run()
    ignore_endings()
    if crew.failure is not None:
        raise crew.failure
    return 0
