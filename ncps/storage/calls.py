"""Calls: the file calls of one store; the reactor waits for none of them.

A call that may wait for the disk runs in a thread, within a deadline, and only its caller waits. At
most `AT_ONCE` calls for one file run at a time, so that a file that cannot be opened does not
occupy all threads. A call that the kernel answers from memory may run on the reactor's thread
(`ncps.aio.nowait`), if the file system is local and fast: every call is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ncps.aio.threads import Threads, in_background
from ncps.aio.waiting import within
from ncps.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")

DEADLINE_S: Final = 60.0
"""Seconds that a caller waits for the disk; a disk that spins up takes 20 s."""

AT_ONCE: Final = 4
"""Threads that the calls for one file may occupy."""

SLOW_S: Final = 0.25
"""Seconds of a call from which on the storage counts as slow for a while."""

CALM_S: Final = 60.0
"""Seconds without a slow call until the storage counts as fast again."""


class Calls:
    """The calls of one store in threads, with a measure of its speed.

    :param clock: for the deadline; None for no deadline.
    :param where: the name of the storage, for the log.
    :param is_local: whether bytes in the kernel's memory may be read without a thread.
    :param now: returns seconds on a monotonic clock; threads call it as well.
    """

    _log = Logger()

    def __init__(
        self,
        threads: Threads,
        *,
        clock: IReactorTime | None = None,
        where: str = "the storage",
        is_local: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = now
        self._threads = threads
        self._clock = clock
        self._where = where
        self.is_local = is_local
        self._lines: dict[str, DeferredSemaphore] = {}
        self._slow_until = 0.0
        self._is_slow = False
        self._worst_s = 0.0

    @property
    def may_be_prompt(self) -> bool:
        """Whether the reactor's thread may make calls that never wait."""
        return self.is_local and not self._is_slow

    @property
    def trouble(self) -> str:
        """A text if the storage is slow; empty if it is fast."""
        return f"{self._where} took {self._worst_s:.1f} s for one call" if self._is_slow else ""

    def took(self, seconds: float) -> None:
        """Record the time that a call has taken; only on the reactor's thread."""
        now = self.now()
        if seconds >= SLOW_S:
            self._slow_until = now + CALM_S
            self._worst_s = max(self._worst_s, seconds)
            if not self._is_slow:
                self._is_slow = True
                self._log.warn(
                    "{where} is slow: one call took {seconds:.1f} s; only requests that need it"
                    " wait",
                    where=self._where,
                    seconds=seconds,
                )
        elif self._is_slow and now >= self._slow_until:
            self._is_slow, self._worst_s = False, 0.0
            self._log.info("{where} is fast again", where=self._where)

    async def run(
        self,
        function: Callable[[], R],
        *,
        line: str,
        drop: Callable[[R], object] = lambda _: None,
    ) -> R:
        """Call the function in a thread; return its result or raise its error.

        Raises Unavailable after the deadline; the thread may still be busy then.

        :param line: the name of the file; see `AT_ONCE`.
        :param drop: called with a result that arrives after the deadline or a cancellation.
        """
        outcome: Deferred[R] = Deferred()
        job = Deferred.fromCoroutine(self._go(function, line, drop, outcome))

        def failed(failure: Failure) -> None:
            if not outcome.called:
                outcome.errback(failure)

        job.addErrback(failed)
        try:
            if self._clock is None:
                return await outcome
            return await within(self._clock, DEADLINE_S, outcome)
        except DeferredTimeout:
            self.took(DEADLINE_S)
            reason = f"{self._where} does not answer within {DEADLINE_S:g} s"
            raise Unavailable(reason, timed_out=True) from None

    def forget(self, function: Callable[[], object]) -> None:
        """Make a call in a thread, without waiting for it."""
        in_background(self._threads, function)

    async def _go(
        self,
        function: Callable[[], R],
        line: str,
        drop: Callable[[R], object],
        outcome: Deferred[R],
    ) -> None:
        places = self._lines.setdefault(line, DeferredSemaphore(AT_ONCE))
        await places.acquire()
        try:
            timed = partial(self._timed_blocking, function, outcome)
            result, seconds = await self._threads.run(timed)
        finally:
            places.release()
            if places.tokens == places.limit:
                self._lines.pop(line, None)
        if seconds < 0:
            return
        self.took(seconds)
        if outcome.called:
            drop(cast("R", result))
        else:
            outcome.callback(cast("R", result))

    def _timed_blocking(
        self, function: Callable[[], R], outcome: Deferred[R]
    ) -> tuple[R | None, float]:
        """Return the result and its seconds, or (None, -1.0) if the caller no longer waits."""
        if outcome.called:
            return None, -1.0
        began = self.now()
        result = function()
        return result, self.now() - began
