"""ServerDatabase: interactions with a database on a server, shared with other processes.

A whole interaction is tried again after a conflict with another transaction, and when its
connection breaks: a server that restarts within `PATIENCE_S` fails no call. If the server is away
for longer, calls fail immediately, except one at a time, which tests whether the server is back. No
call takes longer than its deadline, even if the server or the network hangs.

Look-ups that come in one turn of the reactor share one call: a thread, a statement and a round trip
to the server cost several times more than a row. See `aio.batching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from attrs import define
from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.backoff import Backoff
from ncps.aio.batching import Batching
from ncps.aio.waiting import sleep
from ncps.database.connections import Connections
from ncps.database.dialects.base import Transaction, Trouble, translated
from ncps.database.dialects.server import ServerDialect
from ncps.database.keyed_read import K, KeyedRead, V
from ncps.database.pool import Database
from ncps.errors import Busy, Unavailable
from ncps.observe.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S: Final = 5.0
"""Seconds that a server may be away before calls fail."""
STALE_S: Final = 30.0
"""Seconds after the last failure for which a server counts as away."""
ATTEMPTS: Final = 6
"""Attempts of an interaction that conflicts with other transactions."""
BACKOFF: Final = Backoff(first_s=0.02, longest_s=0.5, jitter=(0.5, 1.5))
"""Pauses between the attempts of one call."""
RETRY_AFTER_S: Final = 5.0
MAX_CALLS: Final = 2000
"""Calls at one time, including those that wait for a connection."""
CLOSE_S: Final = 3.0
"""Seconds that `close` waits for the calls under way."""


@define
class _Attempt:
    """One attempt of a call in a thread.

    :ivar thread: the thread's number; None until the call has started.
    :ivar is_over: whether no caller waits for it any more.
    """

    thread: int | None = None
    is_over: bool = False

    def started(self, thread: int) -> None:
        """Store the number of the thread; called in that thread."""
        self.thread = thread
        if self.is_over:
            raise Unavailable("the call had ended before its turn came")


class ServerDatabase(Database):
    """A database on a server.

    :param reactor: `IReactorTime`, `IReactorThreads` and `IReactorCore`.
    :param size: connections, at most.
    :param idle: idle connections that stay open, at most.
    :param deadline_s: longest time of one call.
    """

    def __init__(
        self,
        reactor: Any,
        dialect: ServerDialect,
        *,
        size: int,
        idle: int,
        deadline_s: float,
        metrics: Metrics,
    ) -> None:
        self._reactor = reactor
        self._dialect = dialect
        self._size = size
        self._idle = idle
        self._deadline_s = deadline_s
        self._seconds = metrics.database_seconds
        self._pool: Connections | None = None
        self._calls = 0
        self._pauses: set[Deferred[None]] = set()
        self._lookups: dict[KeyedRead[Any, Any], Batching[Any, Any]] = {}
        self._away_since: float | None = None
        self._missed_at = float("-inf")
        self._is_probing = False

    def open(self) -> None:
        """See `Database`; the calls make the connections that they need."""
        self._pool = Connections(
            self._reactor, self._dialect, size=self._size, idle=min(self._idle, self._size)
        )
        self._pool.start()

    def close(self) -> None:
        pool, self._pool = self._pool, None
        for pause in list(self._pauses):
            pause.cancel()
        for batching in self._lookups.values():
            batching.flush()
        if pool is not None:
            pool.close_within(CLOSE_S)

    async def point(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._call("point", (), lambda txn: function(txn, *args, **kwargs))

    async def look_up(self, lookup: KeyedRead[K, V], key: K) -> V | None:
        batching = self._lookups.get(lookup)
        if batching is None:
            batching = self._lookups[lookup] = Batching(
                self._reactor, partial(self._look_up_all, lookup), most_waiting=MAX_CALLS
            )
        found: V | None = await batching.ask(key)
        return found

    async def _look_up_all(
        self, lookup: KeyedRead[K, V], keys: Sequence[K]
    ) -> Mapping[K, V | BaseException]:
        return await self._call("point", (), lambda txn: lookup.some(txn, keys))

    async def read(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        begin = self._dialect.begin_read
        return await self._call("read", begin, lambda txn: function(txn, *args, **kwargs))

    async def write(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        begin = self._dialect.begin_write
        return await self._call("write", begin, lambda txn: function(txn, *args, **kwargs))

    async def write_settled(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self.write(function, *args, **kwargs)

    async def settle(self) -> None:
        """See `Database`: a commit of a server is durable already."""

    def _call(self, kind: str, begin: Any, function: Callable[[Transaction], R]) -> Deferred[R]:
        """Start a call; it continues if its caller is cancelled."""
        since = self._reactor.seconds()
        done: Deferred[R] = Deferred()

        def ended(result: Any) -> None:
            self._calls -= 1
            self._seconds(kind).observe(self._reactor.seconds() - since)
            done.callback(result)

        self._calls += 1
        Deferred.fromCoroutine(self._tried(begin, function, since)).addBoth(ended)
        return done

    async def _tried(self, begin: Any, function: Callable[[Transaction], R], since: float) -> R:
        """Repeat a call until it succeeds, or until another attempt would be useless."""
        if self._calls > MAX_CALLS:
            raise Busy("too many calls of the database at one time", retry_after=1.0)
        conflicts, pauses = 0, BACKOFF.pauses()
        while True:
            try:
                return await self._attempt(begin, function, since)
            except self._dialect.errors as error:
                trouble = self._dialect.trouble(error)
                conflicts += trouble is Trouble.CONFLICT
                if trouble is Trouble.FINAL or conflicts == ATTEMPTS:
                    raise translated(self._dialect, error) from error
                if trouble is Trouble.AWAY and self._is_away_for_long():
                    raise translated(self._dialect, error) from error
            await self._pause(next(pauses))

    def _missed(self) -> None:
        """Record that the server did not answer."""
        self._missed_at = self._reactor.seconds()
        if self._away_since is None:
            self._away_since = self._missed_at

    def _is_away_for_long(self) -> bool:
        """Return whether the server is away for longer than `PATIENCE_S`.

        False if its last failure is older than `STALE_S`.
        """
        if self._away_since is None:
            return False
        if self._reactor.seconds() - self._missed_at > STALE_S:
            self._away_since = None
            return False
        return bool(self._missed_at - self._away_since > PATIENCE_S)

    async def _attempt(self, begin: Any, function: Callable[[Transaction], R], since: float) -> R:
        pool = self._pool
        if pool is None or not pool.is_running:
            raise Unavailable("the database is not open")
        is_probe = self._is_away_for_long()
        if is_probe and self._is_probing:
            raise Unavailable(
                f"the database {self._dialect.where} does not answer", retry_after=RETRY_AFTER_S
            )
        attempt = _Attempt()
        running = pool.call(begin, function, attempt.started)
        self._is_probing = self._is_probing or is_probe
        late = self._reactor.callLater(
            max(0.0, since + self._deadline_s - self._reactor.seconds()),
            partial(self._give_up, pool, attempt, running),
        )
        is_away = False
        try:
            return await running
        except CancelledError:
            is_away = True
            raise Unavailable(
                f"the database {self._dialect.where} does not answer in time",
                retry_after=RETRY_AFTER_S,
                timed_out=True,
            ) from None
        except self._dialect.errors as error:
            is_away = self._dialect.trouble(error) is Trouble.AWAY
            raise
        finally:
            if is_away:
                self._missed()
            else:
                self._away_since = None
            attempt.is_over = True
            if late.active():
                late.cancel()
            if is_probe:
                self._is_probing = False

    def _give_up(self, pool: Connections, attempt: _Attempt, running: Deferred[Any]) -> None:
        """End a call at its deadline: release its thread and its caller."""
        attempt.is_over = True
        if attempt.thread is not None:
            pool.cut(attempt.thread)
        running.cancel()

    async def _pause(self, seconds: float) -> None:
        pause = Deferred.fromCoroutine(sleep(self._reactor, seconds))
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            raise Unavailable("the database is closed") from None
        finally:
            self._pauses.discard(pause)
