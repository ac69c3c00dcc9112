"""Batching: questions that come in one turn of the reactor become one call.

A call to a server costs nearly the same for thirty keys as for one. The questions of one turn go
together at its end, so a single question waits only for the end of the turn. While `AT_ONCE` calls
are under way, further questions wait until one of those calls ends, at most `HOLD_S` seconds: a
call that hangs delays no other question for longer.

    ask --> waiting --(the turn ends, a call is free)--> one call --> each caller its own value
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ncps.errors import Busy

K = TypeVar("K")
V = TypeVar("V")

MOST: Final = 32
"""Keys of one call, at most: all of its callers continue in one turn."""
AT_ONCE: Final = 2
"""With this number of calls under way, further questions wait longer than one turn."""
HOLD_S: Final = 0.02
"""Seconds that those questions wait, at most."""


class Batching(Generic[K, V]):
    """A queue of keys whose values one call asks for.

    Cancelling a caller does not affect the others. A key is not asked for if no caller waits for it
    any more.

    :param call: returns the value or the error of each key that has one. If it raises an error, all
        its keys get that error.
    :param most_waiting: keys that may wait; `ask` raises Busy beyond.
    """

    def __init__(
        self,
        clock: IReactorTime,
        call: Callable[[Sequence[K]], Awaitable[Mapping[K, V | BaseException]]],
        *,
        most_waiting: int,
    ) -> None:
        self._clock = clock
        self._call = call
        self._most_waiting = most_waiting
        self._under_way = 0
        self._waiting: list[tuple[K, Deferred[V | None]]] = []
        self._timer: IDelayedCall | None = None
        self._is_turn_over = False

    async def ask(self, key: K) -> V | None:
        """Return the value of a key, None if it has none, or raise its error.

        Raises Busy if too many keys wait.
        """
        if len(self._waiting) >= self._most_waiting:
            raise Busy("too many questions at one time", retry_after=1.0)
        answer: Deferred[V | None] = Deferred()
        self._waiting.append((key, answer))
        if self._timer is None:
            self._is_turn_over = False
            self._timer = self._clock.callLater(0, self._turn_over)
        return await answer

    def flush(self) -> None:
        """Ask for all waiting keys now, for any number of calls under way."""
        self._start(0)

    def _turn_over(self) -> None:
        self._timer = None
        self._is_turn_over = True
        self._start(AT_ONCE)
        if self._waiting:
            self._timer = self._clock.callLater(HOLD_S, self._held)

    def _held(self) -> None:
        self._timer = None
        self.flush()

    def _ended(self) -> None:
        self._under_way -= 1
        if self._is_turn_over:
            self._start(AT_ONCE)

    def _start(self, at_once: int) -> None:
        """Begin calls while fewer than `at_once` are under way; 0: without a limit."""
        while self._waiting and (not at_once or self._under_way < at_once):
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            batch = [(key, answer) for key, answer in batch if not answer.called]
            if batch:
                self._begin(batch)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, batch: Sequence[tuple[K, Deferred[V | None]]]) -> None:
        keys = list(dict.fromkeys(key for key, _ in batch))
        self._under_way += 1
        asking = Deferred.fromCoroutine(_values(self._call(keys)))
        asking.addErrback(_of_all, keys)
        asking.addCallback(self._tell, batch)

    def _tell(
        self,
        values: Mapping[K, V | BaseException],
        batch: Sequence[tuple[K, Deferred[V | None]]],
    ) -> None:
        self._ended()
        for key, answer in batch:
            if answer.called:  # its caller was cancelled
                continue
            value = values.get(key)
            if isinstance(value, BaseException):
                answer.errback(value.with_traceback(None))
            else:
                answer.callback(value)


async def _values(
    call: Awaitable[Mapping[K, V | BaseException]],
) -> Mapping[K, V | BaseException]:
    return await call


def _of_all(failure: Failure, keys: Sequence[K]) -> Mapping[K, BaseException]:
    """Return the error of a failed call for each of its keys."""
    assert failure.value is not None
    return dict.fromkeys(keys, failure.value)
