"""Bulkhead: limits how many callers do a thing at the same time; the others wait in a queue.

The queue has a limit too. Without one each waiter would hold memory and a client, and at its turn
perhaps no client would want the answer any more.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import within
from ncps.errors import Busy


class Bulkhead:
    """A number of slots; use as `async with`, or `acquire` and later `release`.

    :param what: the limited things, in the plural, for messages.
    :param size: the number of slots.
    :param queue: how many callers may wait.
    :param patience_s: seconds that a caller may wait.
    :param reached: called for each refused caller, with "queue" or "patience".
    """

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        *,
        size: int,
        queue: int,
        patience_s: float,
        reached: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._what = what
        self._semaphore = DeferredSemaphore(size)
        self._queue = queue
        self._patience_s = patience_s
        self._reached = reached

    @property
    def free(self) -> int:
        """The number of free slots."""
        return self._semaphore.tokens

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return len(self._semaphore.waiting)

    async def acquire(self) -> None:
        """Take a slot, first come, first served. Raises Busy if too many wait, or too long."""
        if self.free:
            await self._semaphore.acquire()
            return
        if self.waiting >= self._queue:
            self._reached("queue")
            raise Busy(f"{self.waiting} wait for {self._what} already")
        try:
            await within(self._clock, self._patience_s, self._semaphore.acquire())
        except DeferredTimeout:
            self._reached("patience")
            raise Busy(f"waited {self._patience_s:g} s for {self._what}") from None

    def release(self) -> None:
        """Give a slot back; once for each `acquire`."""
        self._semaphore.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()
