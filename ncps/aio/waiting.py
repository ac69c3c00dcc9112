"""Waiting: one computation per key, many waiters, each of which can be cancelled alone.

A Deferred must not have two awaiters: the second one would get None. `Future` is the one fan-out
of this program: a result that is set once, and a fresh Deferred for each waiter, whose
cancellation forgets that waiter and nothing else. `SingleFlight` runs at most one job per key; the
job belongs to `Tasks`, not to whoever asked first, so clients that leave do not stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.tasks import Tasks
from ncps.errors import NcpsError, Unavailable

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Future(Generic[T]):
    """A result that many may await; the first `succeed` or `fail` counts, later ones do not."""

    def __init__(self) -> None:
        self._waiters: dict[Deferred[None], None] = {}
        self._is_set = False
        self._error: BaseException | None = None
        self._value: T | None = None

    @property
    def is_set(self) -> bool:
        """Whether the result is there."""
        return self._is_set

    @property
    def error(self) -> BaseException | None:
        """The error it was failed with, if any."""
        return self._error

    def succeed(self, value: T) -> None:
        """Set the value and wake all waiters."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Set the error; every waiter raises it."""
        self._settle(None, error)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if self._is_set:
            return
        self._is_set, self._value, self._error = True, value, error
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.called:  # one that was woken earlier may have cancelled it
                waiter.callback(None)

    async def wait(self) -> T:
        """Return the value or raise the error, once it is there; cancelling forgets this waiter."""
        if not self._is_set:
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiters[waiter] = None
            await waiter
        if self._error is not None:
            # One exception object for many waiters: each starts a traceback of its own.
            raise self._error.with_traceback(None)
        return cast("T", self._value)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiters.pop(waiter, None)


class Wakeup:
    """Wakes the one coroutine that waits for it, if one does."""

    def __init__(self) -> None:
        self._waiter: Deferred[None] | None = None

    async def wait(self) -> None:
        """Return when `ring` is called next; may be cancelled."""
        assert self._waiter is None, "one coroutine waits"
        waiter = self._waiter = Deferred()
        try:
            await waiter
        finally:
            self._waiter = None

    def ring(self) -> None:
        """Wake whoever waits now."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


class SingleFlight(Generic[K, T]):
    """Jobs under way, by key."""

    def __init__(self, tasks: Tasks, kind: str) -> None:
        self._tasks = tasks
        self._kind = kind
        self._flights: dict[K, Future[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: K, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the job of this key, starting it unless it runs already.

        :param job: called at most once per flight; its error reaches every waiter, and the log
            too if it is none of ours. A job that is cancelled because the program stops looks
            like `Unavailable` to the waiters.
        """
        shared = self._flights.get(key)
        if shared is None:
            shared = self._flights[key] = Future()
            self._tasks.start(f"{self._kind} {key}", self._run(key, shared, job))
        return await shared.wait()

    async def _run(
        self, key: K, shared: Future[T], job: Callable[[], Coroutine[Any, Any, T]]
    ) -> None:
        # The flight is over before anybody hears of it: who asks again then gets a new one.
        try:
            value = await job()
        except NcpsError as error:
            del self._flights[key]
            shared.fail(error)
        except CancelledError:
            del self._flights[key]
            shared.fail(Unavailable("the daemon is stopping"))
            raise
        except Exception as error:
            del self._flights[key]
            shared.fail(error)
            raise
        else:
            del self._flights[key]
            shared.succeed(value)
