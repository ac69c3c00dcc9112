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
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.ask.health import SLOWEST_HEDGE_S, Health
from ncps.ask.policy import verdict
from ncps.ask.race import Race
from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable
from ncps.ports import Upstream
from ncps.settings.schema.upstream import UpstreamsSettings

T = TypeVar("T")

_USUAL = UpstreamsSettings()

PATIENCE_BESIDE_S = SLOWEST_HEDGE_S
"""How long an upstream without a say is waited for where others have answered."""

PATIENCE_S = 1.0
"""The same where nobody else could be asked."""


@define(eq=False)
class Candidate:
    """An upstream and its health.

    :ivar doubted: told of each client's question that came to nothing.
    """

    upstream: Upstream
    health: Health
    doubted: Callable[[], object] = list
    _was_away: bool = False

    _log = Logger()

    async def ask(
        self,
        question: Callable[[Upstream], Awaitable[T]],
        clock: IReactorTime,
        *,
        is_probe: bool = False,
    ) -> T:
        """Put a question and learn from how it went.

        :param is_probe: whether it is asked for its own sake, and not for a client's.
        """
        try:
            return await self._ask(question, clock, is_probe=is_probe)
        finally:
            self._tell_of_change()

    @property
    def is_away(self) -> bool:
        """Whether it is known not to answer, or has no say for another reason."""
        return not self.health.is_healthy or not self.health.has_say

    def is_left_out(self, error: NcpsError) -> bool:
        """Whether an error of its own does not matter, since it has no say."""
        could_not_tell = isinstance(error, Unavailable) or error.is_refusal
        return could_not_tell and not self.health.has_say

    def _tell_of_change(self) -> None:
        """Log once that it is away, and once that it is back."""
        if self.is_away == self._was_away:
            return
        self._was_away = self.is_away
        if self.is_away:
            self._log.warn(
                "upstream {upstream} is away: {reason}",
                upstream=self.upstream.name,
                reason=self.health.why_left_out,
            )
        else:
            self._log.info("upstream {upstream} answers again", upstream=self.upstream.name)

    async def _ask(
        self,
        question: Callable[[Upstream], Awaitable[T]],
        clock: IReactorTime,
        *,
        is_probe: bool,
    ) -> T:
        began, health = clock.seconds(), self.health
        health.asked()
        try:
            answer = await question(self.upstream)
        except (NotFound, Corrupt) as error:
            health.answered(clock.seconds() - began, is_probe=is_probe, is_good=False)
            if is_probe and error.is_refusal:
                health.refused(str(error), is_probe=True)
            raise
        except Busy:
            health.gave_up()
            raise
        except Unavailable as error:
            health.failed(str(error), error.retry_after, began=began, is_probe=is_probe)
            if error.is_refusal:
                health.refused(str(error), is_probe=is_probe)
            if not is_probe:
                self.doubted()
            raise
        except BaseException:  # called off, or a fault of ours
            health.gave_up()
            raise
        health.answered(clock.seconds() - began, is_probe=is_probe)
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
    :param pace: has the least that each has to send of a NAR.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        upstreams: Iterable[Upstream],
        failed: Callable[[Upstream, NcpsError], object] = lambda _u, _e: None,
        pace: UpstreamsSettings = _USUAL,
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
                c.health.is_sick,
                c.upstream.priority,
                c.health.latency_s,
            ),
        )

    def is_reachable(self, base_url: str = "") -> bool:
        """Whether this upstream (default: any) is not known to be away, or to refuse us."""
        return any(
            not c.is_away
            for c in self.candidates
            if not base_url or c.upstream.base_url == base_url
        )

    @property
    def trouble(self) -> str:
        """Who is away and why, for people; empty if nobody is."""
        away = [
            f"{c.upstream.name} ({c.health.why_left_out})" for c in self.candidates if c.is_away
        ]
        return "away: " + ", ".join(away) if away else ""

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
        round_ = Round(self._clock, self.tasks, asked, question, failed)
        found = await round_.run()
        if found is None:
            failures = {c.upstream.name: e for c, e in round_.failures}
            left_out = {c.upstream.name for c, e in round_.failures if c.is_left_out(e)}
            raise verdict(failures, what, left_out)
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
        if not isinstance(error, NotFound) and not candidate.is_left_out(error):
            self._log.warn(
                "upstream {upstream} failed for {what}: {reason}",
                upstream=candidate.upstream.name,
                what=what,
                reason=str(error),
            )


class Round(Generic[T]):
    """One question put to several upstreams.

    One that loses is asked last until it answers again, so that only the first requests wait for
    it. One that has no say is waited for a moment only.

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
        self._failed = failed
        self._waiting = deque(candidates)
        self._patience: IDelayedCall | None = None
        self._hedge: IDelayedCall | None = None
        self._race = Race(tasks, lambda c: c.ask(question, clock), self._lost)

    async def run(self) -> Found[T] | None:
        """Return the first good answer; None if there is none: see `failures`."""
        self._ask_next()
        try:
            winner = await self._race.winner()
        finally:
            self._waiting.clear()
            self._stop_hedge()
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
        return None if winner is None else Found(winner[0].upstream, winner[1])

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
            self._race.enter(f"ask {candidate.upstream.name}", candidate)
            break
        self._conclude()

    def _conclude(self) -> None:
        """End the round if nobody is asked any more, or soon if those who are have no say."""
        asking = self._race.running
        if self._waiting or self._race.is_over:
            return
        if not asking:
            self._race.end()
        elif self._patience is None and not any(c.health.has_say for c in asking):
            is_known = any(not c.is_left_out(error) for c, error in self.failures)
            patience_s = PATIENCE_BESIDE_S if is_known else PATIENCE_S
            self._patience = self._clock.callLater(patience_s, self._wait_no_more)

    def _wait_no_more(self) -> None:
        for candidate in self._race.running:
            why = candidate.health.why_left_out
            self.failures.append((candidate, Unavailable(f"away ({why}), and asked in vain")))
        self._race.end()

    def _too_slow(self, candidate: Candidate) -> None:
        candidate.health.suspect()
        self._ask_next()

    def _lost(self, candidate: Candidate, error: NcpsError) -> None:
        self.failures.append((candidate, error))
        self._failed(candidate, error)
        if not self._race.is_over:
            self._ask_next()
