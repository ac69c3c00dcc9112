"""Requests to a bucket: each runs in a thread of the bucket's own pool.

Requests wait for a thread in a bounded queue, and uploads in another one: a burst of one kind
leaves threads to the other. Reads of an open body need no queue, because each body reads one piece
at a time and the web layer limits the number of bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ncps.aio.bulkhead import Bulkhead
from ncps.aio.threads import Threads
from ncps.storage.s3.bucket import Bucket

P = ParamSpec("P")
R = TypeVar("R")


class BucketRequests:
    """The requests to a bucket: two queues, and the threads.

    :param slots: a slot for each request that may run or wait for a thread.
    :param uploads: a slot for each upload that may run or wait for a thread.
    """

    def __init__(
        self, *, bucket: Bucket, workers: Threads, slots: Bulkhead, uploads: Bulkhead
    ) -> None:
        self.bucket = bucket
        self.workers = workers
        self._slots = slots
        self._uploads = uploads

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function with short requests in a thread. Raises Busy if the queue is full."""
        return await self._run(self._slots, function, *args, **kwargs)

    async def upload(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that sends a large object. Raises Busy if the queue is full."""
        return await self._run(self._uploads, function, *args, **kwargs)

    async def _run(
        self, slots: Bulkhead, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Take a slot, call the function in a thread, return the result.

        The end of the call releases the slot, not its caller: a cancelled caller frees no slot
        while the thread is busy. Otherwise cancelled callers could occupy all threads.
        """
        await slots.acquire()
        result: Deferred[R] = Deferred()

        def ended(value: R | Failure) -> None:
            slots.release()
            if not isinstance(value, Failure):
                result.callback(value)
            elif not result.called:
                result.errback(value)

        Deferred.fromCoroutine(self.workers.run(function, *args, **kwargs)).addBoth(ended)
        return await result
