"""Supervisor: so many workers kept running, until all are told to end.

    start   every worker is started at once; the first that ends instead of serving fails the start
    life    a worker that ends is replaced: at once after a good life, later and later after short
            ones, so that a fault that comes back costs one start every `LONGEST_PAUSE_S` seconds
    stop    all are told to end, those that do not in time are killed

This is the arithmetic of it. What a process is and how it is started comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.backoff import EXACT, Backoff
from ncps.errors import Unavailable

START_S = 120.0
"""A worker that cannot serve after so long is taken for one that never will."""
GOOD_LIFE_S = 60.0
LONGEST_PAUSE_S = 30.0
BACKOFF = Backoff(first_s=1.0, longest_s=LONGEST_PAUSE_S, jitter=EXACT)
"""Pauses before a worker is replaced, from its second short life on."""


class Process(Protocol):
    """A started worker."""

    @property
    def pid(self) -> int:
        """Process id."""

    def signal(self, name: str) -> None:
        """Send "TERM" or "KILL"; harmless when it has ended."""

    def cut(self) -> None:
        """Tell it to end without waiting for what runs; harmless when it has ended."""


class Watch(Protocol):
    """What is told of a worker's life."""

    def ready(self) -> None:
        """It serves."""

    def ended(self, how: str, why: str = "") -> None:
        """It is gone; `how` completes "it ended with ...".

        :param why: what it said of that itself, whole; empty for nothing.
        """


Spawn = Callable[[int, int, Watch], Process]
"""Starts worker `number` for the nth time, both from 1. OSError."""


@define(eq=False)
class _Post:
    """The place of one worker, whoever fills it."""

    number: int
    supervisor: Supervisor
    life: int = 0
    pauses: Iterator[float] | None = None
    since: float = 0.0
    is_ready: bool = False
    process: Process | None = None
    timer: IDelayedCall | None = None

    def ready(self) -> None:
        """See `Watch`."""
        self.is_ready = True
        self.set_timer(None)
        self.supervisor.has_begun(self)

    def ended(self, how: str, why: str = "") -> None:
        """See `Watch`."""
        self.process, self.is_ready = None, False
        self.set_timer(None)
        self.supervisor.has_ended(self, how, why)

    def set_timer(self, timer: IDelayedCall | None) -> None:
        """Wait for this, and for nothing else any more."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = timer


class Supervisor:
    """See the module. `start` once, then `stop` once, whether the start succeeded or not.

    :ivar has_failed: whether the start did not succeed.
    :ivar is_stopping: whether all are to end.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, count: int, spawn: Spawn) -> None:
        self.has_failed = False
        self._clock = clock
        self._spawn = spawn
        self._posts = [_Post(number, self) for number in range(1, count + 1)]
        self.is_stopping = False
        self._started: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None

    @property
    def running(self) -> int:
        """Workers that have a process now."""
        return sum(post.process is not None for post in self._posts)

    async def start(self) -> None:
        """Start all workers; return when all serve, or when told to stop.

        Unavailable: one of them ended before.
        """
        started: Deferred[None] = Deferred()
        self._started = started
        for post in self._posts:
            if self._started is not None:
                self._start(post)
        await started

    async def stop(self, deadline_s: float) -> None:
        """End all workers; return when they are gone, whatever it takes after the deadline."""
        self.is_stopping = True
        for post in self._posts:
            post.set_timer(None)
            if post.process is not None:
                post.process.signal("TERM")
        self._settle_start()
        if not self.running:
            return
        late = self._clock.callLater(deadline_s, self._kill)
        self._stopped = Deferred()
        await self._stopped
        if late.active():
            late.cancel()

    def cut(self, deadline_s: float) -> None:
        """Have all workers cut what they still run; those that do not end then are killed."""
        self.is_stopping = True
        for post in self._posts:
            post.set_timer(None)
            if post.process is not None:
                post.process.cut()
                post.set_timer(self._clock.callLater(deadline_s, post.process.signal, "KILL"))

    def _kill(self) -> None:
        for post in self._posts:
            if post.process is not None:
                self._log.error(
                    "worker {worker} did not end in time and is killed", worker=post.number
                )
                post.process.signal("KILL")

    def _start(self, post: _Post) -> None:
        post.life += 1
        post.since = self._clock.seconds()
        try:
            post.process = self._spawn(post.number, post.life, post)
        except OSError as error:
            post.ended(f"no process at all ({error.strerror})")
            return
        post.set_timer(self._clock.callLater(START_S, self._give_up, post))

    def _give_up(self, post: _Post) -> None:
        self._log.error("worker {worker} does not begin to serve", worker=post.number)
        assert post.process is not None, "the timer ends with the process"
        post.process.signal("KILL")

    def has_begun(self, post: _Post) -> None:
        """Take note that a worker serves."""
        self._log.debug("worker {worker} serves", worker=post.number)
        if all(other.is_ready for other in self._posts):
            self._settle_start()

    def _settle_start(self, error: Unavailable | None = None) -> None:
        started, self._started = self._started, None
        if started is None:
            return
        if error is None:
            started.callback(None)
        else:
            self.has_failed = True
            started.errback(error)

    def has_ended(self, post: _Post, how: str, why: str = "") -> None:
        """Take note that a worker is gone; replace it, unless all are to go."""
        if self.is_stopping:
            if not self.running and self._stopped is not None:
                stopped, self._stopped = self._stopped, None
                stopped.callback(None)
            return
        if self._started is not None:
            self._settle_start(
                Unavailable(why or f"worker {post.number} ended before it could serve, with {how}")
            )
            return
        if self.has_failed:
            return  # the stop that follows replaces nobody
        pause = self._pause(post)
        self._log.error(
            "worker {worker} ended with {how}; another takes its place in {pause} s",
            worker=post.number,
            how=how,
            pause=pause,
        )
        post.set_timer(self._clock.callLater(pause, self._start, post))

    def _pause(self, post: _Post) -> float:
        """Seconds until the next start: 0 after a good life and after the first short one."""
        if self._clock.seconds() - post.since >= GOOD_LIFE_S:
            post.pauses = None
            return 0.0
        if post.pauses is None:
            post.pauses = BACKOFF.pauses()
            return 0.0
        return next(post.pauses)
