"""Supervisor: keeps a number of workers running, until all must end.

    start   all workers start at the same time; if one ends before it serves, the start fails
    life    a worker that ends is replaced: immediately after a long life, with growing pauses after
            short ones, so that a permanent fault costs one start every `LONGEST_PAUSE_S` seconds
    stop    all workers get SIGTERM; those that do not end in time are killed

This module has only the rules: its caller starts the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.backoff import EXACT, Backoff
from ncps.aio.waiting import Future
from ncps.errors import Unavailable

START_S = 120.0
"""Seconds within which a worker must serve; it is killed then."""
GOOD_LIFE_S = 60.0
LONGEST_PAUSE_S = 30.0
ABORT_S = 5.0
"""Seconds that a stalled worker has to write its stack, before it is killed."""
BACKOFF = Backoff(first_s=1.0, longest_s=LONGEST_PAUSE_S, jitter=EXACT)
"""The pauses before a replacement, from the second short life on."""


class Process(Protocol):
    """A started worker."""

    @property
    def pid(self) -> int:
        """The process id."""

    def signal(self, name: str) -> None:
        """Send "TERM", "KILL" or "ABRT"; harmless after the end of the process."""

    def give(self, settings: bytes) -> None:
        """Send other settings; harmless after the end of the process."""

    def cut(self) -> None:
        """Order the process to end without waiting for running work; harmless after its end."""


class Watch(Protocol):
    """The receiver of the reports about one worker."""

    def ready(self) -> None:
        """Learn that the worker serves."""

    def pulse(self) -> None:
        """Learn that the worker's reactor runs."""

    def took(self, lines: Sequence[str]) -> None:
        """Learn that the worker has applied other settings.

        :param lines: texts about changes.
        """

    def ended(self, how: str, why: str = "") -> None:
        """Learn that the worker has ended.

        :param how: completes the sentence "it ended with ...".
        :param why: the worker's own message about its end; empty if it sent none.
        """


Spawn = Callable[[int, int, Watch], Process]
"""Starts a worker; takes its number and the number of its life, both from 1, and its receiver.

Raises OSError if that fails.
"""


@define(eq=False)
class _Post:
    """The place of one worker, which has several processes one after the other."""

    number: int
    supervisor: Supervisor
    life: int = 0
    pauses: Iterator[float] | None = None
    since: float = 0.0
    is_ready: bool = False
    seen_at: float = 0.0
    process: Process | None = None
    taking: Future[Sequence[str]] | None = None
    timer: IDelayedCall | None = None

    def ready(self) -> None:
        """See `Watch`."""
        self.is_ready = True
        self.set_timer(None)
        self.pulse()
        self.supervisor.has_begun(self)

    def pulse(self) -> None:
        """See `Watch`."""
        self.seen_at = self.supervisor.clock.seconds()

    def took(self, lines: Sequence[str]) -> None:
        """See `Watch`."""
        taking, self.taking = self.taking, None
        if taking is not None:
            taking.succeed(lines)

    def ended(self, how: str, why: str = "") -> None:
        """See `Watch`."""
        self.took(())  # its successor begins with the new settings
        self.process, self.is_ready = None, False
        self.set_timer(None)
        self.supervisor.has_ended(self, how, why)

    def set_timer(self, timer: IDelayedCall | None) -> None:
        """Replace the timer; cancel the former one."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = timer


class Supervisor:
    """The supervisor of all workers. Call `start`, then `stop`, also after a failed start.

    :ivar has_failed: whether the start has failed.
    :ivar is_stopping: whether all workers must end.
    :ivar changed: called when a worker has begun to serve, or has ended.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, count: int, spawn: Spawn) -> None:
        self.has_failed = False
        self.clock = clock
        self.changed: Callable[[], object] = lambda: None
        self._spawn = spawn
        self._posts = [_Post(number, self) for number in range(1, count + 1)]
        self.is_stopping = False
        self._started: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None

    @property
    def running(self) -> int:
        """Workers that have a process now."""
        return sum(post.process is not None for post in self._posts)

    @property
    def serving(self) -> int:
        """Workers that serve now."""
        return sum(post.is_ready for post in self._posts)

    async def start(self) -> None:
        """Start all workers; return when all serve, or at a `stop`.

        Raises Unavailable if one of them ends before that.
        """
        started: Deferred[None] = Deferred()
        self._started = started
        for post in self._posts:
            if self._started is not None:
                self._start(post)
        await started

    async def stop(self, deadline_s: float) -> None:
        """End all workers, kill those that miss the deadline; return when all have ended."""
        self.is_stopping = True
        for post in self._posts:
            post.set_timer(None)
            if post.process is not None:
                post.process.signal("TERM")
        self._settle_start()
        if not self.running:
            return
        late = self.clock.callLater(deadline_s, self._kill)
        self._stopped = Deferred()
        await self._stopped
        if late.active():
            late.cancel()

    def cut(self, deadline_s: float) -> None:
        """Order all workers to cut their running work; kill those that miss the deadline."""
        self.is_stopping = True
        for post in self._posts:
            post.set_timer(None)
            if post.process is not None:
                post.process.cut()
                post.set_timer(self.clock.callLater(deadline_s, post.process.signal, "KILL"))

    def give(self, settings: bytes) -> dict[int, Future[Sequence[str]]]:
        """Send other settings to all workers; a future fires when its worker has applied them."""
        given: dict[int, Future[Sequence[str]]] = {}
        for post in self._posts:
            if post.process is not None:
                post.took(())
                post.taking = given[post.number] = Future()
                post.process.give(settings)
        return given

    def end_stalled(self, patience_s: float) -> None:
        """End the serving workers that have given no pulse for `patience_s` seconds."""
        now = self.clock.seconds()
        for post in self._posts:
            if post.process is None or not post.is_ready or now - post.seen_at < patience_s:
                continue
            self._log.error(
                "worker {worker} has given no sign of life for {seconds} s and is ended; its stack"
                " goes to standard error",
                worker=post.number,
                seconds=round(now - post.seen_at),
            )
            post.is_ready = False
            post.set_timer(self.clock.callLater(ABORT_S, post.process.signal, "KILL"))
            post.process.signal("ABRT")

    def _kill(self) -> None:
        for post in self._posts:
            if post.process is not None:
                self._log.error(
                    "worker {worker} did not end in time and is killed", worker=post.number
                )
                post.process.signal("KILL")

    def _start(self, post: _Post) -> None:
        post.life += 1
        post.since = self.clock.seconds()
        try:
            post.process = self._spawn(post.number, post.life, post)
        except OSError as error:
            post.ended(f"no process at all ({error.strerror})")
            return
        post.set_timer(self.clock.callLater(START_S, self._give_up, post))

    def _give_up(self, post: _Post) -> None:
        self._log.error("worker {worker} does not start to serve in time", worker=post.number)
        assert post.process is not None, "the timer ends with the process"
        post.process.signal("KILL")

    def has_begun(self, post: _Post) -> None:
        """React to a worker that has begun to serve."""
        self._log.debug("worker {worker} serves", worker=post.number)
        self.changed()
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
        """React to the end of a worker; replace it, unless all must end."""
        self.changed()
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
            return  # the stop that follows replaces no worker
        pause = self._pause(post)
        self._log.error(
            "worker {worker} ended with {how}; another takes its place in {pause} s",
            worker=post.number,
            how=how,
            pause=pause,
        )
        post.set_timer(self.clock.callLater(pause, self._start, post))

    def _pause(self, post: _Post) -> float:
        """Return seconds until the next start: 0 after a long life and the first short one."""
        if self.clock.seconds() - post.since >= GOOD_LIFE_S:
            post.pauses = None
            return 0.0
        if post.pauses is None:
            post.pauses = BACKOFF.pauses()
            return 0.0
        return next(post.pauses)
