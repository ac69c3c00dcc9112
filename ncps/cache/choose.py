"""Whom to ask, in what order: several upstreams as one source.

Asked in order of local priority, then of recent latency (D7). While one is slow, the next is
asked too; when one says no or fails, the next is asked at once. The first good answer wins.
Every failure is kept, for the verdict of `policy`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from attrs import define, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.cache.health import Health
from ncps.cache.pace import USUAL_PACE, Pace
from ncps.cache.policy import verdict
from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable
from ncps.flights import Shared
from ncps.ports import Upstream
from ncps.tasks import Tasks

T = TypeVar("T")


@define(eq=False)
class Candidate:
    """An upstream and its health."""

    upstream: Upstream
    health: Health
    _was_away: bool = False

    _log = Logger()

    async def ask(self, question: Callable[[Upstream], Awaitable[T]], clock: IReactorTime) -> T:
        """Put a question and learn from how it went."""
        try:
            return await self._ask(question, clock)
        finally:
            self._tell_of_change()

    def _tell_of_change(self) -> None:
        """Log once that it is away, and once that it is back."""
        is_away = not self.health.is_healthy
        if is_away == self._was_away:
            return
        self._was_away = is_away
        if is_away:
            self._log.warn(
                "upstream {upstream} is away: {reason}",
                upstream=self.upstream.name,
                reason=self.health.last_error,
            )
        else:
            self._log.info("upstream {upstream} answers again", upstream=self.upstream.name)

    async def _ask(self, question: Callable[[Upstream], Awaitable[T]], clock: IReactorTime) -> T:
        began = clock.seconds()
        self.health.asked()
        try:
            answer = await question(self.upstream)
        except (NotFound, Corrupt):
            self.health.answered(clock.seconds() - began)
            raise
        except Busy:
            self.health.gave_up()
            raise
        except Unavailable as error:
            self.health.failed(str(error), error.retry_after)
            raise
        except BaseException:  # called off, or a fault of ours
            self.health.gave_up()
            raise
        self.health.answered(clock.seconds() - began)
        return answer


@frozen
class Found(Generic[T]):
    """A good answer and who gave it."""

    upstream: Upstream
    value: T


class Upstreams:
    """All configured upstreams.

    :ivar tasks: own the requests that outlive their round.
    :param failed: told of each failure: upstream, error; for metrics.
    :param pace: the least that each has to send of a NAR.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        upstreams: Iterable[Upstream],
        failed: Callable[[Upstream, NcpsError], object] = lambda _u, _e: None,
        pace: Pace = USUAL_PACE,
    ) -> None:
        self.pace = pace
        self._clock = clock
        self.tasks = tasks
        self._failed = failed
        self.candidates = [Candidate(upstream, Health(clock)) for upstream in upstreams]
        self._names = {c.upstream.base_url: c.upstream.name for c in self.candidates}

    def ordered(self, first: str = "") -> list[Candidate]:
        """Everyone in the order in which to ask.

        :param first: base URL of one that goes before all others.
        """
        return sorted(
            self.candidates,
            key=lambda c: (
                c.upstream.base_url != first or not first,
                not c.health.is_healthy or c.health.is_suspect,
                c.upstream.priority,
                c.health.latency_s,
            ),
        )

    def is_reachable(self, base_url: str = "") -> bool:
        """Whether this upstream (default: any) is not known to be away."""
        return any(
            c.health.is_healthy
            for c in self.candidates
            if not base_url or c.upstream.base_url == base_url
        )

    def name_of(self, base_url: str) -> str:
        """Name of the upstream with this base URL; empty if there is none."""
        return self._names.get(base_url, "")

    async def first(
        self,
        what: str,
        question: Callable[[Upstream], Coroutine[Any, Any, T]],
        *,
        preferred: str = "",
        without: Collection[str] = (),
    ) -> Found[T]:
        """Ask until somebody has a good answer; raise the verdict if nobody has.

        :param question: raises NotFound, Unavailable or Corrupt where the upstream has none.
        :param without: base URLs of upstreams that are not asked.
        """

        def failed(candidate: Candidate, error: NcpsError) -> None:
            self.report(what, candidate, error)

        asked = [c for c in self.ordered(preferred) if c.upstream.base_url not in without]
        round_ = _Round[T](self._clock, self.tasks, asked, question, failed)
        found = await round_.run()
        if found is None:
            raise verdict({c.upstream.name: e for c, e in round_.failures}, what)
        return found

    def count(self, candidate: Candidate, error: NcpsError) -> None:
        """Count a failure of one upstream."""
        self._failed(candidate.upstream, error)

    def blame(self, base_url: str, what: str, error: NcpsError) -> None:
        """Report a failure of the upstream with this base URL, if there is one."""
        for candidate in self.candidates:
            if candidate.upstream.base_url == base_url:
                self.report(what, candidate, error)

    def report(self, what: str, candidate: Candidate, error: NcpsError) -> None:
        """Count a failure of one upstream and log it; an absence is none."""
        self.count(candidate, error)
        if not isinstance(error, NotFound):
            self._log.warn(
                "upstream {upstream} failed for {what}: {reason}",
                upstream=candidate.upstream.name,
                what=what,
                reason=str(error),
            )


class _Round(Generic[T]):
    """One question put to several upstreams.

    Those that lose run on to their own deadline: that is how a stalling upstream is found out.
    Until it answers again it is asked last, so that only the first requests wait for it.

    :param failed: told of each failure, also of one that comes after the round is decided.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        candidates: list[Candidate],
        question: Callable[[Upstream], Coroutine[Any, Any, T]],
        failed: Callable[[Candidate, NcpsError], object],
    ) -> None:
        self.failures: list[tuple[Candidate, NcpsError]] = []
        self._clock = clock
        self._tasks = tasks
        self._question = question
        self._failed = failed
        self._waiting = deque(candidates)
        self._asking = 0
        self._hedge: IDelayedCall | None = None
        self._result: Shared[Found[T] | None] = Shared()

    async def run(self) -> Found[T] | None:
        self._ask_next()
        try:
            return await self._result.wait()
        finally:
            self._waiting.clear()
            self._stop_hedge()

    def _stop_hedge(self) -> None:
        if self._hedge is not None and self._hedge.active():
            self._hedge.cancel()

    def _ask_next(self) -> None:
        """Ask the next one that may be asked; conclude if there is none and nobody is asking."""
        self._stop_hedge()
        while self._waiting:
            candidate = self._waiting.popleft()
            health = candidate.health
            if not health.may_ask:
                why = health.last_error or "a probe is under way"
                error = Unavailable(f"away ({why})", retry_after=health.retry_after_s)
                self.failures.append((candidate, error))
                continue
            if self._waiting:
                self._hedge = self._clock.callLater(health.hedge_s, self._too_slow, candidate)
            self._asking += 1
            self._tasks.start(f"ask {candidate.upstream.name}", self._ask(candidate))
            return
        if not self._asking:
            self._result.succeed(None)

    def _too_slow(self, candidate: Candidate) -> None:
        candidate.health.suspect()
        self._ask_next()

    async def _ask(self, candidate: Candidate) -> None:
        try:
            value = await candidate.ask(self._question, self._clock)
        except (NotFound, Unavailable, Corrupt) as error:
            self._lost(candidate, error)
        except CancelledError as error:
            self._result.fail(error)
            raise
        except Exception as error:  # what one upstream sends must not spoil the others' answers
            self._lost(candidate, Corrupt(f"unforeseen: {type(error).__name__}"))
            raise
        else:
            self._result.succeed(Found(candidate.upstream, value))

    def _lost(self, candidate: Candidate, error: NcpsError) -> None:
        self._asking -= 1
        self.failures.append((candidate, error))
        self._failed(candidate, error)
        if not self._result.is_set:
            self._ask_next()
