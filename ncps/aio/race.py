"""Race: several attempts at one thing; the first that succeeds wins.

Attempts that lose continue until their own deadline, so a stalled upstream is noticed. The owner of
the race decides when another attempt begins. Each attempt runs in the context in which the race
began, and so has its trail and its span.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import Future
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable

E = TypeVar("E")
T = TypeVar("T")


class Race(Generic[E, T]):
    """One race.

    :param attempt: raises NotFound, Unavailable or Corrupt if it fails.
    :param lost: called with each failure, also after the end of the race.
    :param discard: called with each success after the end of the race.
    :ivar running: the entrants whose attempts have not ended.
    :ivar is_over: whether there is a winner, or no caller waits for one any more.
    """

    def __init__(
        self,
        tasks: Tasks,
        attempt: Callable[[E], Awaitable[T]],
        lost: Callable[[E, NcpsError], object],
        discard: Callable[[T], object] = lambda _: None,
    ) -> None:
        self.running: list[E] = []
        self.is_over = False
        self._context = copy_context()
        self._tasks = tasks
        self._attempt = attempt
        self._lost = lost
        self._discard = discard
        self._result: Future[tuple[E, T] | None] = Future()

    async def winner(self) -> tuple[E, T] | None:
        """Return the first success and its entrant; None if the owner has ended the race."""
        try:
            return await self._result.wait()
        finally:
            self.is_over = True

    def enter(self, title: str, entrant: E) -> None:
        """Begin an attempt, in a task with this title."""
        self.running.append(entrant)
        self.start(title, self._run(entrant))

    def start(self, title: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task in the context of the request that began the race."""
        self._context.copy().run(self._tasks.start, title, work)

    def end(self, error: BaseException | None = None) -> None:
        """End the race without a winner; `winner` raises the error, if one is given."""
        if error is None:
            self._result.succeed(None)
        else:
            self._result.fail(error)
        self.is_over = True

    async def _run(self, entrant: E) -> None:
        try:
            value = await self._attempt(entrant)
        except (NotFound, Unavailable, Corrupt) as error:
            self._failed(entrant, error)
        except CancelledError as error:
            self._result.fail(error)
            raise
        except Exception:  # a fault in one attempt must not leave a client waiting
            self._failed(entrant, Corrupt("an error of this cache, of which its log says more"))
            raise
        else:
            self.running.remove(entrant)
            if self.is_over:
                self._discard(value)
            else:
                self.is_over = True
                self._result.succeed((entrant, value))

    def _failed(self, entrant: E, error: NcpsError) -> None:
        self.running.remove(entrant)
        self._lost(entrant, error)
