"""Choose: asks several upstreams as one source, in an order.

The order follows local priority, then recent latency (D7). While one upstream is slow, the next is
asked too. When one denies or fails, the next is asked immediately. The first good answer wins. Each
failure is kept, for the verdict of `policy`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ncps.aio.guess import Guess, is_unwanted
from ncps.aio.guess import current as current_guess
from ncps.aio.race import Race
from ncps.aio.tasks import Tasks
from ncps.ask.health import SLOWEST_HEDGE_S, Candidate, Health
from ncps.ask.policy import kind_of, verdict
from ncps.errors import NcpsError, NotFound, Unavailable
from ncps.observe.decisions import are_logged
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.spans import current
from ncps.ports import Upstream
from ncps.settings.schema.upstream import UpstreamsSettings

T = TypeVar("T")

_USUAL = UpstreamsSettings()

PATIENCE_BESIDE_S = SLOWEST_HEDGE_S
"""Seconds to wait for an upstream without a say if others have answered."""

PATIENCE_S = 1.0
"""The same if no other upstream could be asked."""


@frozen
class Found(Generic[T]):
    """A good answer, and the upstream that gave it."""

    upstream: Upstream
    value: T


class Upstreams:
    """All configured upstreams.

    :ivar tasks: own the requests that outlive their round.
    :ivar names: the name of each upstream by its base URL.
    :param pace: the least rate at which each upstream must send a NAR.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        upstreams: Iterable[Upstream],
        metrics: Metrics,
        pace: UpstreamsSettings = _USUAL,
    ) -> None:
        self.pace = pace
        self._clock = clock
        self.tasks = tasks
        self._metrics = metrics
        self.candidates = [Candidate(upstream, Health(clock)) for upstream in upstreams]
        self.names = _names(self.candidates)

    def replace(self, upstreams: Iterable[Upstream]) -> None:
        """Ask these upstreams from now on; keep the health of those that stay.

        Running questions continue with the former upstreams.
        """
        known = {candidate.upstream: candidate for candidate in self.candidates}
        self.candidates = [
            known.get(upstream) or Candidate(upstream, Health(self._clock))
            for upstream in upstreams
        ]
        self.names = _names(self.candidates)

    def ordered(self) -> list[Candidate]:
        """Return all upstreams in the order to ask them."""
        return sorted(self.candidates, key=lambda c: c.health.rank(c.upstream.priority))

    def is_reachable(self, base_url: str = "") -> bool:
        """Return whether this upstream (default: any) is not known to be away or to refuse us."""
        for candidate in self.candidates:  # no generator expression: each hit runs this
            is_meant = not base_url or candidate.upstream.base_url == base_url
            if is_meant and not candidate.is_away:
                return True
        return False

    @property
    def trouble(self) -> str:
        """Text about the upstreams that are away, and why; empty if there is none."""
        away = [
            f"{c.upstream.name} ({c.health.why_left_out})" for c in self.candidates if c.is_away
        ]
        return "away: " + ", ".join(away) if away else ""

    async def first(
        self,
        what: str,
        question: Callable[[Upstream], Coroutine[Any, Any, T]],
        *,
        without: Collection[str] = (),
    ) -> Found[T]:
        """Ask until an upstream has a good answer; raise the verdict if none has.

        :param question: asks one upstream; raises NotFound, Unavailable or Corrupt without a good
            answer.
        :param without: base URLs of upstreams that are not asked.
        """

        def failed(candidate: Candidate, error: NcpsError) -> None:
            self.report(what, candidate, error)

        asked = [c for c in self.ordered() if c.upstream.base_url not in without]
        is_logged = are_logged()
        if is_logged:
            order = ", ".join(map(_described, asked)) or "none is left"
            text = "{what}: upstreams to ask, in this order: {order}"
            self._log.debug(text, what=what, order=order)
        round_ = Round(self._clock, self.tasks, asked, question, failed)
        found = await round_.run()
        if found is None:
            failures = {c.upstream.name: e for c, e in round_.failures}
            left_out = {c.upstream.name for c, e in round_.failures if c.is_left_out(e)}
            error = verdict(failures, what, left_out)
            if is_logged:
                self._log.debug("{what}: no good answer: {reason}", what=what, reason=str(error))
            raise error
        if is_logged:
            name = found.upstream.name
            self._log.debug("{what}: {upstream} has it", what=what, upstream=name)
        return found

    def count(self, candidate: Candidate, error: NcpsError) -> None:
        """Count a failure of one upstream. An absence or a limit of ours is no failure."""
        kind = kind_of(error)
        if kind:
            self._metrics.upstream_errors(candidate.upstream.name, kind).inc()

    def blame(self, base_url: str, what: str, error: NcpsError) -> None:
        """Report a failure of the upstream with this base URL, if there is one."""
        for candidate in self.candidates:
            if candidate.upstream.base_url == base_url:
                self.report(what, candidate, error)

    def report(self, what: str, candidate: Candidate, error: NcpsError) -> None:
        """Count a failure of one upstream and log it. An absence is no failure."""
        self.count(candidate, error)
        if not isinstance(error, NotFound) and not candidate.is_left_out(error):
            tell = self._log.debug if is_unwanted() else self._log.warn
            tell(
                "upstream {upstream} failed for {what}: {reason}",
                upstream=candidate.upstream.name,
                what=what,
                reason=str(error),
            )


def _names(candidates: Iterable[Candidate]) -> Mapping[str, str]:
    """Return the name of each upstream by its base URL."""
    return {each.upstream.base_url: each.upstream.name for each in candidates}


def _described(candidate: Candidate) -> str:
    """Return the name of an upstream, with the reason not to ask it now, if there is one."""
    name, health = candidate.upstream.name, candidate.health
    if not health.may_ask:
        return f"{name} (not asked now: {health.last_error or 'a probe is under way'})"
    return f"{name} (failing or late, so others go first)" if health.is_asked_last else name


class Round(Generic[T]):
    """One question to several upstreams.

    An upstream that loses is asked last until it answers again, so that only the first requests
    wait for it. A round waits only briefly for an upstream that has no say.

    :param failed: called with each failure, also with one after the end of the round.
    """

    _log = Logger()

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
        ask = partial(Candidate.ask, question=question, clock=clock)
        self._span = current()
        self._guess: Guess | None = current_guess()
        self._race = Race(tasks, ask, self._lost)

    async def run(self) -> Found[T] | None:
        """Return the first good answer; None if there is none, with the errors in `failures`."""
        self._ask_next()
        try:
            winner = await self._race.winner()
        finally:
            self._waiting.clear()
            self._stop_hedge()
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
        return None if winner is None else Found(winner[0].upstream, winner[1])

    @property
    def _is_guess(self) -> bool:
        """Whether no client has asked. Kept here, because timers run in another context."""
        return self._guess is not None and not self._guess.is_wanted

    def _stop_hedge(self) -> None:
        if self._hedge is not None and self._hedge.active():
            self._hedge.cancel()

    def _ask_next(self) -> None:
        """Ask the next upstream that may be asked; without one, end the round if it is over."""
        self._stop_hedge()
        while self._waiting:
            candidate = self._waiting.popleft()
            health = candidate.health
            if not health.may_ask or (self._is_guess and not health.may_guess):
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
        """End the round if no attempt runs, or soon if the running ones have no say."""
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
            self.failures.append((candidate, Unavailable(f"away ({why}), and gave no answer")))
        self._race.end()

    def _too_slow(self, candidate: Candidate) -> None:
        if are_logged():
            name = candidate.upstream.name
            self._log.debug("{upstream} is late: the next one is asked, too", upstream=name)
        if not self._is_guess:
            candidate.health.suspect()
        self._span.event("hedge", {"ncps.late": candidate.upstream.name})
        self._ask_next()

    def _lost(self, candidate: Candidate, error: NcpsError) -> None:
        self.failures.append((candidate, error))
        self._failed(candidate, error)
        if not self._race.is_over:
            self._ask_next()
