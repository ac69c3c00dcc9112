"""Workers: a named pool of threads for calls that block; the only way from a coroutine to a thread.

The pool is not the reactor's own: that one resolves names, and a full pool would stop it. A running
call cannot be stopped: if its caller is cancelled, the thread continues and its result is dropped.
Joining a thread blocks the reactor until its call ends, so `stop` waits for the calls first and
joins only idle threads. The threads are daemons: a call that hangs for ever on a dead file system
does not keep the process alive.

This is not Twisted's pool, whose threads end for ever when memory is short between two calls.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ncps.errors import Unavailable

RETRY_S = 0.01
"""Seconds until a thread without memory tries again to return its result."""

_log = Logger()

P = ParamSpec("P")
R = TypeVar("R")


class Reactor(Protocol):
    """The part of a reactor that workers need: `IReactorFromThreads` and `IReactorTime`."""

    def callFromThread(self, function: Callable[..., object], *args: object) -> None: ...

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object
    ) -> IDelayedCall: ...


class Threads(Protocol):
    """The threads for blocking work: `Workers`, or a fake that calls immediately."""

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread; return its result or raise its error."""


def in_background(threads: Threads, function: Callable[[], object]) -> None:
    """Make a call that no caller waits for: in this thread if the pool has stopped."""
    is_begun = False

    def call() -> None:
        nonlocal is_begun
        is_begun = True
        function()

    def failed(failure: Failure) -> None:
        if is_begun:
            _log.failure("a call in the background failed", failure)
        else:
            call()

    Deferred.fromCoroutine(threads.run(call)).addErrback(failed)


class _Call:
    """A call in a thread; its caller gets the result even when memory is short."""

    def __init__(
        self, reactor: Reactor, ended: Callable[[_Call], None], function: Callable[[], object]
    ) -> None:
        self.result: Deferred[object] = Deferred()
        self.is_over = False
        self._reactor = reactor
        self._ended = ended
        self._function = function
        self._is_made = False
        self._value: object = None
        self._error: BaseException | None = None

    def refuse(self, error: BaseException) -> None:
        """Fail the call with an error instead of making it, unless it has been made."""
        if not self._is_made:
            self._is_made = True
            self._error = error

    def run_blocking(self) -> None:
        """Make the call once, and return its result on the reactor's thread; may be repeated."""
        if not self._is_made:
            self._is_made = True
            try:
                self._value = self._function()
            except BaseException as error:  # noqa: BLE001 - all are passed on
                self._error = error
        self._reactor.callFromThread(self._ended, self)

    def tell(self) -> None:
        """Give the caller the result or the error; drop the error if the caller was cancelled."""
        error, self._error = self._error, None  # its traceback refers to this call
        if error is None:
            self.result.callback(self._value)
        elif not self.result.called:
            self.result.errback(error)


class Workers:
    """A pool of threads, and the calls that wait for one of them.

    :param name: of the pool, for thread names, logs and metrics.
    :param size: threads at most; each starts when it is needed.
    """

    _log = Logger()

    def __init__(self, reactor: Reactor, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._reactor = reactor
        self._calls: deque[_Call | None] = deque()
        self._pipe: tuple[int, int] | None = None  # at least one byte for each call
        self._threads: list[threading.Thread] = []
        self._in_flight = 0
        self._is_open = False
        self._is_abandoned = False
        self._idle: Deferred[None] | None = None

    @property
    def running(self) -> int:
        """The number of calls that have a thread now."""
        return min(self._in_flight, self.size)

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return self._in_flight - self.running

    def start(self) -> None:
        """Accept calls from now on."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._is_open = True

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a thread, in a copy of this context; return its result or raise.

        Cancelling does not stop the call, but drops its result. Raises Unavailable if the pool was
        not started, or has stopped.
        """
        if not self._is_open:
            raise Unavailable(f"the {self.name} threads are not running")
        in_context = partial(copy_context().run, function, *args, **kwargs)
        call = _Call(self._reactor, self._ended, in_context)
        self._in_flight += 1
        try:
            if len(self._threads) < min(self._in_flight, self.size):
                self._begin_thread()
            self._put(call)
        except BaseException:
            self._ended(call)
            raise
        return cast("R", await call.result)

    def _begin_thread(self) -> None:
        """Start a thread. Raises Unavailable if that fails and the pool has no other thread."""
        name = f"{self.name}-{len(self._threads)}"
        thread = threading.Thread(target=self._serve_blocking, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise Unavailable(f"no thread for {self.name}: {error}") from error
        else:
            self._threads.append(thread)

    def _put(self, call: _Call | None) -> None:
        self._calls.append(call)
        assert self._pipe is not None
        with suppress(BlockingIOError):  # the pipe is full, so all threads wake anyway
            os.write(self._pipe[1], b"x")

    def _take_blocking(self) -> _Call | None:
        """Wait for the next call.

        If memory runs out half-way, Python's queues may lose a call, and its locks may stay locked.
        """
        assert self._pipe is not None
        while True:
            try:
                return self._calls.popleft()
            except IndexError:
                os.read(self._pipe[0], 1)

    def _serve_blocking(self) -> None:
        """Make calls until the pool stops; a lack of memory ends no thread."""
        call: _Call | None = None
        while True:
            try:
                call = call or self._take_blocking()
                if call is None:
                    return
                if self._is_abandoned:
                    call.refuse(Unavailable(f"the {self.name} threads have stopped"))
                call.run_blocking()
                call = None
            except MemoryError:  # other threads may free memory; until then the caller waits
                time.sleep(RETRY_S)

    def _ended(self, call: _Call) -> None:
        if call.is_over:
            return
        call.is_over = True
        self._in_flight -= 1
        call.tell()
        if self._in_flight == 0:
            self._drained()

    def _drained(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.callback(None)

    async def stop(self, deadline_s: float) -> int:
        """Refuse new calls, wait at most `deadline_s` for the others, end the threads.

        Return how many calls have not ended; of these, a call without a thread will never run.
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
        for _ in self._threads:
            self._put(None)
        if not self._in_flight:
            for thread in self._threads:
                thread.join()
            if self._pipe is not None:
                for end in self._pipe:
                    os.close(end)
        return self._in_flight
