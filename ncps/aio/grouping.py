"""Grouping: calls that wait at the same time become one call.

A call that syncs a directory or commits a transaction costs nearly the same for twenty items as for
one. The first item goes immediately, alone. The items that come during that call go together in the
next call. So a single item does not wait, and many items share the cost.

    add --> waiting --(a call is free)--> one call for all --> each caller its own result
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
R = TypeVar("R")

MOST: Final = 16
"""Items of one call, at most: its first item waits for the last one, and all callers continue in
one turn of the reactor."""


class Grouping(Generic[T, R]):
    """A queue of items that one call processes together.

    Cancelling a caller stops nothing: its item is processed nevertheless.

    :param call: processes items; returns for each, in order, its result or its error. If it raises
        an error, all its items get that error.
    :param at_once: calls at the same time, at most.
    :param most: items of one call, at most; with 1, nothing is grouped.
    :param shared: called with the number of items of each call that has several.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        at_once: int = 1,
        most: int = MOST,
        shared: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._call = call
        self._free = at_once
        self._most = most
        self._shared = shared
        self._waiting: deque[tuple[T, Deferred[R]]] = deque()

    async def add(self, item: T) -> R:
        """Process an item with others; return its result or raise its error."""
        result: Deferred[R] = Deferred()
        self._waiting.append((item, result))
        if self._free:
            self._free -= 1
            self._next()
        return await result

    def _next(self) -> None:
        """Begin the next call with the items that wait; its end begins another one."""
        if not self._waiting:
            self._free += 1
            return
        count = min(self._most, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        if count > 1:
            self._shared(count)
        job = Deferred.fromCoroutine(_made(self._call([item for item, _ in batch]), count))
        job.addErrback(_of_all, count)
        job.addCallback(partial(_tell, batch))
        job.addBoth(lambda _: self._next())


async def _made(
    call: Awaitable[Sequence[R | BaseException]], count: int
) -> Sequence[R | BaseException]:
    made = await call
    assert len(made) == count
    return made


def _of_all(failure: Failure, count: int) -> Sequence[BaseException]:
    """Return the error of a failed call for each of its items."""
    assert failure.value is not None
    return [failure.value] * count


def _tell(batch: Sequence[tuple[T, Deferred[R]]], made: Sequence[R | BaseException]) -> None:
    for (_, result), outcome in zip(batch, made, strict=True):
        if result.called:  # its caller was cancelled
            continue
        if isinstance(outcome, BaseException):
            result.errback(outcome.with_traceback(None))
        else:
            result.callback(outcome)
