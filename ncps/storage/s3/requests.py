"""Requests to a bucket: each runs in a thread of the bucket's own pool.

They stand in a bounded line for the threads, uploads in one of their own, so that a burst of either
leaves threads to the other. Bodies need no line: each reads one piece at a time, and who may have a
body was decided before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ncps.aio.slots import Slots
from ncps.aio.threads import Threads
from ncps.storage.s3.bucket import Bucket, Listed

P = ParamSpec("P")
R = TypeVar("R")


async def run_in_line(
    slots: Slots, workers: Threads, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Take a slot, call in a thread, return its result. Busy: the line is too long.

    The slot is the call's, not the caller's: who leaves does not make room while a thread is busy
    for nobody. Else a crowd that comes and goes would fill the threads without bound.
    """
    await slots.acquire()
    result: Deferred[R] = Deferred()

    def ended(value: R | Failure) -> None:
        slots.release()
        if not isinstance(value, Failure):
            result.callback(value)
        elif not result.called:
            result.errback(value)

    Deferred.fromCoroutine(workers.run(function, *args, **kwargs)).addBoth(ended)
    return await result


class Requests:
    """The way to a bucket: the line, and the threads at its end.

    :param slots: one for each request that may run or wait for a thread.
    """

    def __init__(self, *, bucket: Bucket, workers: Threads, slots: Slots) -> None:
        self.bucket = bucket
        self.workers = workers
        self._slots = slots

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what asks the bucket, in a thread. Busy: the line is too long."""
        return await run_in_line(self._slots, self.workers, function, *args, **kwargs)

    async def walk(self, base: str) -> AsyncIterator[Listed]:
        """Objects below a key, one hop for each page."""
        after = ""
        while True:
            page, after = await self.run(self.bucket.page, f"{base}/", after)
            for item in page:
                yield item
            if not after:
                return
