"""Workers: a named pool of threads for what blocks; the only way from a coroutine to a thread.

The pool is never the reactor's own, which resolves names: a full pool would stop that. A call
that runs cannot be stopped: whoever cancels the await of `run` goes on at once, and the thread
goes on, too, its result dropped. Joining threads blocks the reactor for as long as the slowest
call, so `stop` waits for the calls first and joins only threads that idle. The threads are
daemons: a call that hangs for ever on a dead file system does not keep the process alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ncps.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


class Reactor(Protocol):
    """What workers need of a reactor: `IReactorFromThreads` and `IReactorTime`."""

    def callFromThread(self, function: Callable[..., object], *args: object) -> None: ...

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object
    ) -> IDelayedCall: ...


class Threads(Protocol):
    """Where blocking work runs; `Workers`, or a fake that calls at once."""

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread; return its result or raise its error."""


class _DaemonThread(threading.Thread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, daemon=True, **kwargs)


class _DaemonPool(ThreadPool):
    threadFactory = _DaemonThread


class Workers:
    """See the module.

    :param name: of the pool, for thread names, logs and metrics.
    :param size: threads at most; they are started as they are needed.
    """

    _log = Logger()

    def __init__(self, reactor: Reactor, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._reactor = reactor
        self._pool = _DaemonPool(minthreads=0, maxthreads=size, name=name)
        self._in_flight = 0
        self._is_open = False
        self._is_abandoned = False
        self._idle: Deferred[None] | None = None

    @property
    def running(self) -> int:
        """Calls in threads now."""
        return min(self._in_flight, self.size)

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._in_flight - self.running

    def start(self) -> None:
        """Accept calls from now on."""
        self._is_open = True
        self._pool.start()

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread; return its result or raise its error.

        Cancelling forgets the call but does not stop it. Unavailable: not started, or stopped.
        """
        if not self._is_open:
            raise Unavailable(f"the {self.name} threads are not running")
        result: Deferred[R] = Deferred()
        self._in_flight += 1
        self._pool.callInThreadWithCallback(
            partial(self._reactor.callFromThread, self._ended, result),
            self._call_blocking,
            partial(function, *args, **kwargs),
        )
        return await result

    def _call_blocking(self, call: Callable[[], R]) -> R:
        if self._is_abandoned:
            raise Unavailable(f"the {self.name} threads have stopped")
        return call()

    def _ended(self, result: Deferred[R], is_success: bool, value: R | Failure) -> None:
        self._in_flight -= 1
        if is_success:
            result.callback(cast("R", value))
        elif not result.called:  # else cancelled: nobody wants the error
            result.errback(cast("Failure", value))
        if self._in_flight == 0:
            self._drained()

    def _drained(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.callback(None)

    async def stop(self, deadline_s: float) -> int:
        """Refuse new calls, wait for those under way at most so long, end the threads.

        Return how many calls were left behind; those that had no thread yet will never run.
        """
        if not self._is_open:
            return 0
        self._is_open = False
        if self._in_flight:
            idle: Deferred[None] = Deferred()
            self._idle = idle
            timer = self._reactor.callLater(deadline_s, self._drained)
            await idle
            if timer.active():
                timer.cancel()
        if self._in_flight:
            self._is_abandoned = True
            self._log.warn(
                "{count} calls in the {pool} threads did not end in time and are left behind",
                count=self._in_flight,
                pool=self.name,
            )
            return self._in_flight
        self._pool.stop()
        return 0
