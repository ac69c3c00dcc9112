"""Tasks: background coroutines with an owner, which logs their failures and awaits their end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ncps.aio.waiting import Future, sleep, within
from ncps.errors import NcpsError

UNWIND_S = 2.0
"""Seconds that cancelled work may take to release its leases and files."""


class Tasks:
    """The background work of one part of the program."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: dict[Deferred[None], str] = {}
        self._idle: Future[None] = Future()

    @property
    def names(self) -> list[str]:
        """The names of the running tasks, oldest first."""
        return list(self._running.values())

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run a coroutine to its end; return its Deferred, which is only for `cancel`."""
        done = Deferred.fromCoroutine(coroutine)
        if not done.called or done.paused:
            self._running[done] = name
        done.addErrback(self._failed, name)
        done.addBoth(self._ended, done)
        return done

    def _failed(self, failure: Failure, name: str) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("background task {task} failed", failure=failure, task=name)

    def _ended(self, _: object, done: Deferred[None]) -> None:
        self._running.pop(done, None)
        if not self._running:
            idle, self._idle = self._idle, Future()
            idle.succeed(None)

    async def stop(self, deadline_s: float) -> int:
        """Wait at most `deadline_s` for running tasks, then cancel them; return how many.

        Cancelled tasks have `UNWIND_S` seconds more to release their leases and files.
        """
        await self._wait(deadline_s)
        cut = list(self._running)
        for done in cut:
            done.cancel()
        await self._wait(UNWIND_S)
        return len(cut)

    async def _wait(self, deadline_s: float) -> None:
        """Wait until nothing runs, at most `deadline_s`."""
        if not self._running:
            return
        with suppress(DeferredTimeout):
            await within(self._clock, deadline_s, self._idle.wait())


class Coalesced:
    """A job that runs once for all calls of `ask` since its last run began; one run at a time.

    :param job: logs its own errors.
    :param longest_rest_s: the longest pause that `rest` can set.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        name: str,
        job: Callable[[], Coroutine[Any, Any, None]],
        *,
        longest_rest_s: float,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._name = name
        self._job = job
        self._longest_rest_s = longest_rest_s
        self._is_asked = False
        self._is_running = False
        self._rests_until = 0.0

    def ask(self) -> None:
        """Run the job: now, or as soon as its present run and its pause are over."""
        self._is_asked = True
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._name, self._run())

    def rest(self, seconds: float) -> None:
        """Pause: begin no run within the next `seconds`."""
        self._rests_until = self._clock.seconds() + min(seconds, self._longest_rest_s)

    async def _run(self) -> None:
        try:
            while self._is_asked:
                rest = self._rests_until - self._clock.seconds()
                if rest > 0:
                    await sleep(self._clock, min(rest, self._longest_rest_s))
                self._is_asked = False
                await self._job()
        finally:
            self._is_running = False


class Ticker:
    """A loop that calls a coroutine function for ever; it logs a tick that fails and continues.

    :param interval_s: seconds between the end of one tick and the start of the next; a callable is
        called each time.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        tick: Callable[[], Coroutine[Any, Any, None]],
        interval_s: float | Callable[[], float],
    ) -> None:
        self._clock = clock
        self._name = name
        self._tick = tick
        self._interval_s = interval_s

    @property
    def name(self) -> str:
        """The name in logs."""
        return self._name

    async def run(self) -> None:
        """Tick until cancelled, for `Tasks.start`. The first tick comes immediately."""
        while True:
            try:
                await self._tick()
            except CancelledError:
                raise
            except NcpsError as error:  # expected: a part that it needs is away
                self._log.warn(
                    "{task} cannot be done now and will be tried again: {reason}",
                    task=self._name,
                    reason=str(error),
                )
            except Exception:  # noqa: BLE001 - a failing tick must not end the loop
                self._log.failure("{task} failed; it will be tried again", task=self._name)
            interval = (
                self._interval_s
                if isinstance(self._interval_s, float | int)
                else self._interval_s()
            )
            await sleep(self._clock, interval)
