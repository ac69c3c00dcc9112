"""NcpsService: one process of ncps, which starts and stops its parts in order.

start   settings -> storage -> locks -> schema -> Runtime.start -> READY
stop    STOPPING -> Runtime.stop -> locks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ncps import codec
from ncps.aio.allocator import keep_large_blocks
from ncps.aio.ending import Ending
from ncps.aio.reactor import chosen_reactor
from ncps.aio.signals import handle_signals, ignore_endings, ignore_others
from ncps.aio.threads import in_background
from ncps.aio.waiting import Future
from ncps.assembly.checks import Locks, check
from ncps.assembly.databases import remake
from ncps.assembly.fetching import metrics
from ncps.assembly.keys import imported_key
from ncps.assembly.parts import Adapters, Foundation, adapters
from ncps.assembly.reload import Reload
from ncps.assembly.reloaders import apply
from ncps.assembly.role import Alone, Role
from ncps.assembly.runtime import Runtime
from ncps.assembly.systemd import Pulse, stopping
from ncps.assembly.telemetry import refuse_without_library
from ncps.errors import NcpsError
from ncps.observe import log_levels, logs
from ncps.settings.schema.tree import Settings


class NcpsService(Service):
    """One process of ncps as a service of Twisted.

    :param reactor: runs everything; stopped if the start fails.
    :param role: the relation to other workers; by default there are none.
    :param logs_failure: whether to log a failed start; False if the caller reports it.
    :ivar failure: why the start failed, for the exit code.
    :ivar started: called once, at the end of the start, with the reason of a failure or with "".
    :ivar ending: the time that running work has at the end; `cut` ends it.
    :ivar reload: reads the settings again on request.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any = None,
        role: Role | None = None,
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
        log_levels.tell_decisions(settings.log.level)
        self._settings = settings
        self._reactor = reactor
        self._role = role if role is not None else Alone(reactor)
        self._locks = Locks()
        self._metrics = metrics(settings)
        self._parts: Adapters | None = None
        self._runtime: Runtime | None = None
        self._starting: Deferred[None] | None = None
        self._is_serving: Future[None] = Future()
        self.reload = Reload(
            reactor,
            settings,
            take=self.take,
            tell=self._role.tell,
            status=lambda: self._runtime.status.line if self._runtime else "",
        )
        self._pulse = Pulse(reactor, self._role.watchdog.pulse_s, self._beat)

    def check(self) -> None:
        """Take the locks, probe the storage, update the schema; before the reactor runs.

        A worker leaves this to its supervisor, but makes a removed SQLite file again. Raises
        Refused, StorageFull or Unavailable, whose text says what is wrong and what is right.
        """
        refuse_without_library(self._settings)
        self._parts = adapters(self._reactor, self._settings, self._metrics)
        imported_key(self._settings)
        if not self._role.is_in_charge:
            remake(self._settings)
            return
        check(self._settings, self._parts, self._locks)

    def privilegedStartService(self) -> None:
        """See `IService`: make all checks that can fail before anything runs."""
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
        self.privilegedStartService()  # `twist` does not call it
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    def _start_failed(self, failure: Any) -> None:
        if not self.running:
            return  # a stop has cancelled the start
        error = failure.value
        if isinstance(error, NcpsError):
            if self._logs_failure:
                self._log.critical("cannot start: {reason}", reason=str(error))
            self.failure = error
        else:
            self._log.failure("cannot start", failure)
            self.failure = NcpsError("an unexpected error; the log says more")
        self.started(str(self.failure))
        self._reactor.callWhenRunning(self._reactor.stop)

    async def _start(self) -> None:
        assert self._parts is not None, "check() comes first"
        keep_large_blocks()
        base = Foundation(
            reactor=self._reactor,
            settings=self._settings,
            parts=self._parts,
            metrics=self._metrics,
            role=self._role,
        )
        self._runtime = Runtime(base, self.ending)
        await self._runtime.start()
        self._role.tell("READY=1", self._runtime.status.line, *self._role.watchdog.prepare())
        self._pulse.start()
        self._is_serving.succeed(None)
        self.reload.start()
        self.started("")
        in_background(self._parts.workers, codec.import_all)

    async def take(self, settings: Settings) -> list[str]:
        """Apply other settings once the start is over; see `reloaders`.

        Returns lines about changes that the settings do not show.
        """
        await self._is_serving.wait()
        return [] if self._runtime is None else await apply(self._runtime.reloaders, settings)

    def _beat(self) -> None:
        self._role.tell("WATCHDOG=1")

    def stopService(self) -> Deferred[None]:
        """See `IService`; fires when all parts have ended."""
        super().stopService()
        if self._starting is not None:
            self._starting.cancel()  # does nothing if the start has ended
        stopped = Deferred.fromCoroutine(self._stop())
        # The reactor waits for its triggers, but does not report those that fail.
        return stopped.addErrback(lambda failure: self._log.failure("cannot stop", failure))

    async def _stop(self) -> None:
        self.ending.begin()
        await self.reload.stop()
        self._role.tell(*stopping(self.ending.longest_s))
        if self._runtime is not None:
            await self._runtime.stop()
        self._pulse.stop()
        self.release_locks()
        logs.tell_repeats(all_=True)
        if self.failure is None:
            self._log.info("ncps has stopped")

    @property
    def lock_fds(self) -> list[int]:
        """Descriptors of the locks, for child processes that also hold the locks."""
        return self._locks.fds

    def release_locks(self) -> None:
        """Release the locks of store and database; a further call does nothing."""
        self._locks.release()


def serve(settings: Settings) -> int:
    """Run one process until a signal; return the exit code. Raises NcpsError if the start fails."""
    run = chosen_reactor()
    service = NcpsService(settings, run, logs_failure=False)
    ignore_others(run, service.reload.ask)
    try:
        service.check()
    except NcpsError:
        service.release_locks()
        raise
    handle_signals(run, service.ending.cut, service.reload.ask)
    run.addSystemEventTrigger("before", "shutdown", service.stopService)
    run.callWhenRunning(service.startService)
    run.run()
    ignore_endings()
    if service.failure is not None:
        raise service.failure
    return 0
