"""Waiting: for a time, for a result, for a call, and with a deadline.

A Deferred must not have two awaiters: the second one would get None. `Future` is for several: its
result is set once, and each waiter has its own Deferred. To cancel that affects this waiter only.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ncps.errors import Unavailable

T = TypeVar("T")


async def sleep(clock: IReactorTime, seconds: float) -> None:
    """Wait for a time."""
    await deferLater(clock, seconds)


async def within(
    clock: IReactorTime,
    seconds: float,
    work: Deferred[T] | Coroutine[Any, Any, T],
    late: str = "",
) -> T:
    """Return the result of the work; cancel the work if it takes longer than `seconds`.

    Then it raises Unavailable, timed out, with the message `late`. Without a message it raises
    Twisted's TimeoutError, which is no NcpsError and so differs from the errors of the work.
    """
    done = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    if done.called and not done.paused:  # often: most leases are free, and a timer costs more
        return await done
    try:
        return await done.addTimeout(seconds, clock)
    except DeferredTimeout:
        if not late:
            raise
        raise Unavailable(late, timed_out=True) from None


class Future(Generic[T]):
    """A result that many coroutines may await; only the first `succeed` or `fail` counts."""

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
        """The error of `fail`, if that was called."""
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
            if not waiter.called:  # a waiter that was woken earlier may have cancelled this one
                waiter.callback(None)

    async def wait(self) -> T:
        """Wait, then return the value or raise the error; cancelling affects this waiter only."""
        if not self._is_set:
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiters[waiter] = None
            await waiter
        if self._error is not None:
            # Many waiters raise this one object, so each begins a new traceback.
            raise self._error.with_traceback(None)
        return cast("T", self._value)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiters.pop(waiter, None)


class Wakeup:
    """An event for one coroutine, which may wait for it or not."""

    def __init__(self) -> None:
        self._waiter: Deferred[None] | None = None

    async def wait(self) -> None:
        """Return when `wake` is called next; may be cancelled."""
        assert self._waiter is None, "one coroutine waits"
        waiter = self._waiter = Deferred()
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Wake the coroutine that waits now, if one does."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)
