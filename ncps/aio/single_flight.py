"""SingleFlight: at most one job for each key; all its waiters get the result.

A job belongs to `Tasks` and not to its first caller, so callers that leave do not stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import Future
from ncps.errors import NcpsError, Unavailable

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """The jobs under way, by key."""

    def __init__(self, tasks: Tasks, kind: str) -> None:
        self._tasks = tasks
        self._kind = kind
        self._flights: dict[K, Future[T]] = {}
        self._jobs: dict[K, Deferred[None]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: K, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the job of this key; start it unless it runs already.

        :param job: called at most once per flight; every waiter raises its error. The log has an
            error that is no NcpsError as well. If the stop of the program cancels the job, the
            waiters raise Unavailable.
        """
        shared = self._flights.get(key)
        if shared is None:
            shared = self._flights[key] = Future()
            running = self._tasks.start(f"{self._kind} {key}", self._run(key, shared, job))
            if self._flights.get(key) is shared:  # else it has ended already
                self._jobs[key] = running
        return await shared.wait()

    def cancel(self, key: K) -> None:
        """End the job of this key; harmless if there is none. Its waiters get Unavailable.

        A caller that asks for the key after that starts a new job.
        """
        shared, job = self._flights.get(key), self._jobs.get(key)
        if shared is not None and job is not None:
            self._end(key, shared)
            job.cancel()
            shared.fail(Unavailable("no client wants it any more"))

    def _end(self, key: K, shared: Future[T]) -> bool:
        """Remove a flight; False if it has ended: another flight, or none, has the key now."""
        if self._flights.get(key) is not shared:
            return False
        del self._flights[key]
        self._jobs.pop(key, None)
        return True

    async def _run(
        self, key: K, shared: Future[T], job: Callable[[], Coroutine[Any, Any, T]]
    ) -> None:
        # The flight ends before its waiters continue: a waiter that asks again starts a new one.
        try:
            value = await job()
        except NcpsError as error:
            if self._end(key, shared):
                shared.fail(error)
        except CancelledError:
            if self._end(key, shared):
                shared.fail(Unavailable("the daemon is stopping"))
            raise
        except Exception as error:
            if self._end(key, shared):
                shared.fail(error)
            raise
        else:
            if self._end(key, shared):
                shared.succeed(value)
