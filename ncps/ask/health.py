"""Health of one upstream, learned from traffic: circuit breakers, its say, its recent latency.

While the breaker is open (see `ncps.aio.breaker`), no request is sent. While it is half-open, one
request or probe may be sent, and for all others the upstream is still away. A second breaker of the
same kind is for bodies. If an upstream's heads arrive but its NARs stall, it is asked for no NAR
until one has arrived completely.

A candidate is an upstream together with its health.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.backoff import EXACT, Backoff
from ncps.aio.breaker import Breaker
from ncps.aio.guess import is_unwanted
from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable
from ncps.ports import Upstream

T = TypeVar("T")

FAILURES = 3
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0  # well below the patience of downloads, which must see that it is back
MAX_RETRY_AFTER_S = 60.0
BACKOFF = Backoff(first_s=FIRST_PAUSE_S, longest_s=MAX_PAUSE_S, jitter=EXACT)
SLOWEST_HEDGE_S = 0.15
FASTEST_HEDGE_S = 0.02

AWAY_S = 2.0
"""An upstream has no say after its breaker was open for this many seconds."""

TRIAL_S = 60.0
"""Seconds after an outage in which an answered probe does not prove that the outage is over."""

PROVEN_S = 3600.0
"""Seconds after a good answer in which a refused probe is ignored: a bucket may refuse paths that
do not exist."""


class Say:
    """The say of one upstream: whether its failure to answer counts in the verdict.

    An upstream that worked a moment ago may have the requested thing, and may be back before a
    client gives up: its silence is no absence. An upstream that has been away for longer, or
    refuses us, has no say: the others' answers count as if it did not exist. A Nix client tries
    five times within about 4 s.

    An upstream may answer probes and nothing else. So an answered probe returns the say on trial:
    if the next question fails, the upstream loses the say immediately. After that, only an answered
    question returns it. Times are the clock's seconds.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._trial_ends = float("-inf")
        self._is_relapsed = False
        self._refusals: dict[bool, str] = {}
        self._proven_until = float("-inf")

    def has_say(self, *, is_open: bool) -> bool:
        """Return whether the upstream has a say now.

        :param is_open: whether its breaker is open.
        """
        since = self._failing_since
        is_away = is_open and since is not None and self._clock.seconds() - since >= AWAY_S
        return not (is_away or self._is_relapsed or self._refusals)

    @property
    def refusal(self) -> str:
        """How the upstream refuses us; empty if it does not."""
        return next(iter(self._refusals.values()), "")

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last request to the upstream failed."""
        return self._failing_since is not None

    def failed(self, began: float, *, is_probe: bool) -> None:
        """Note that a question, sent at the time `began`, got no answer."""
        if self._failing_since is None:
            self._failing_since = began
        if not is_probe and self._clock.seconds() < self._trial_ends:
            self._is_relapsed = True

    def refused(self, reason: str, *, is_probe: bool) -> None:
        """Note that the upstream requires other credentials than ours."""
        if not (is_probe and self._clock.seconds() < self._proven_until):
            self._refusals[is_probe] = reason

    def answered(self, *, is_probe: bool, is_open: bool, is_good: bool) -> None:
        """Note an answer.

        :param is_open: whether the breaker was open until then.
        :param is_good: whether the answer has the requested thing; that ends any refusal.
        """
        if is_probe and not self.has_say(is_open=is_open) and not self.refusal:
            self._trial_ends = self._clock.seconds() + TRIAL_S
        if not is_probe:
            self._trial_ends = float("-inf")
            self._is_relapsed = False
        self._failing_since = None
        self._refusals.pop(is_probe, None)
        if is_good and not is_probe:
            self._refusals.clear()
            self._proven_until = self._clock.seconds() + PROVEN_S


def _breaker(clock: IReactorTime) -> Breaker:
    return Breaker(clock, failures=FAILURES, backoff=BACKOFF, longest_asked_s=MAX_RETRY_AFTER_S)


class Health:
    """The health of one upstream; times are the clock's seconds.

    :ivar answered_at: the time of its last answer of any kind.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._answers = _breaker(clock)
        self._bodies = _breaker(clock)
        self._say = Say(clock)
        self._is_suspect = False
        self._latency_s: float | None = None
        self._deviation_s = 0.0
        self.answered_at = self._guesses_from = float("-inf")
        self.last_error = ""

    @property
    def is_healthy(self) -> bool:
        """Whether both breakers are closed."""
        return self._answers.is_closed and self._bodies.is_closed

    @property
    def is_away(self) -> bool:
        """Whether the upstream does not answer, or has no say for another reason."""
        return not self.is_healthy or not self.has_say

    @property
    def has_say(self) -> bool:
        """Whether its failure to answer counts in the verdict; see `Say`."""
        return self._say.has_say(is_open=not self._answers.is_closed)

    @property
    def is_in_doubt(self) -> bool:
        """Whether the upstream is away, or failed to answer the last question."""
        return not self.is_healthy or self._say.is_in_doubt

    @property
    def why_left_out(self) -> str:
        """Why the upstream has no say."""
        return self._say.refusal or self.last_error or "it does not answer"

    @property
    def may_ask(self) -> bool:
        """Whether a request may be sent now."""
        return self._answers.may_ask

    @property
    def may_guess(self) -> bool:
        """Whether a request may be sent now that no client waits for.

        Such a request must not be the probe of a half-open breaker: clients would wait for it.
        """
        return self.is_healthy and self._clock.seconds() >= self._guesses_from

    @property
    def may_fetch(self) -> bool:
        """Whether a request for a NAR may be sent now."""
        return self._answers.may_ask and self._bodies.may_ask

    @property
    def is_asked_last(self) -> bool:
        """Whether others are asked first, because its breaker is open or an answer is overdue."""
        return not self.is_healthy or self._is_suspect

    @property
    def latency_s(self) -> float:
        """Recent latency to the head of an answer; 0 while unknown, so that each one is tried."""
        return self._latency_s or 0.0

    def rank(self, priority: int) -> tuple[bool, int, float]:
        """Return a sort key: the upstream with the lowest key is asked first.

        :param priority: priority of the upstream; lower is asked first.
        """
        return self.is_asked_last, priority, self.latency_s

    @property
    def hedge_s(self) -> float:
        """Seconds to wait for this upstream before another one is asked too."""
        if self._latency_s is None:
            return SLOWEST_HEDGE_S / 2
        usual = self._latency_s + 4 * self._deviation_s
        return min(SLOWEST_HEDGE_S, max(FASTEST_HEDGE_S, usual))

    @property
    def retry_after_s(self) -> float:
        """Seconds until the upstream may be asked again, also for a NAR; 0 if it may be now."""
        return max(self._answers.wait_s, self._bodies.wait_s)

    def suspect(self) -> None:
        """Note that an answer is overdue."""
        self._is_suspect = True

    def asked(self) -> None:
        """Note that a request is sent; the caller calls `answered`, `failed` or `gave_up` later."""
        self._answers.asked()

    def answered(
        self, latency_s: float | None = None, *, is_probe: bool = False, is_good: bool = True
    ) -> None:
        """Note an answer, good or not.

        :param is_probe: whether the question was a probe.
        :param is_good: whether the answer has the requested thing.
        """
        is_open = not self._answers.is_closed
        self._say.answered(is_probe=is_probe, is_open=is_open, is_good=is_good)
        self._answers.succeeded()
        self._is_suspect = False
        self.answered_at = self._clock.seconds()
        if self._bodies.is_closed:
            self.last_error = ""
        if latency_s is None:
            return
        if self._latency_s is None:
            self._latency_s, self._deviation_s = latency_s, latency_s / 2
        else:  # as TCP estimates round trips (RFC 6298 section 2)
            self._deviation_s += (abs(self._latency_s - latency_s) - self._deviation_s) / 4
            self._latency_s += (latency_s - self._latency_s) / 8

    def failed(
        self,
        reason: str,
        retry_after_s: float | None = None,
        *,
        began: float | None = None,
        is_probe: bool = False,
    ) -> None:
        """Note that no usable answer came.

        :param began: the time of the question; None: now.
        """
        self.last_error = reason
        self._say.failed(self._clock.seconds() if began is None else began, is_probe=is_probe)
        self._answers.failed(retry_after_s)
        self.guess_failed(retry_after_s)

    def guess_failed(self, retry_after_s: float | None) -> None:
        """Send no guesses for the pause that the upstream asked for, if it asked for one."""
        pause_s = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        self._guesses_from = max(self._guesses_from, self._clock.seconds() + pause_s)

    def refused(self, reason: str, *, is_probe: bool = False) -> None:
        """Note that the upstream requires other credentials than ours."""
        self._say.refused(reason, is_probe=is_probe)

    def gave_up(self) -> None:
        """Note that we cancelled the request, which says nothing about the upstream."""
        self._answers.gave_up()

    # Bodies of NARs

    def fetching(self) -> None:
        """Note a request for a NAR; the caller calls `delivered`, `stalled` or `let_go` later."""
        self._bodies.asked()

    def delivered(self) -> None:
        """Note that a body has arrived completely."""
        self._bodies.succeeded()

    def stalled(self, reason: str) -> None:
        """Note that a body stalled until we gave up."""
        self.last_error = reason
        self._bodies.failed()

    def let_go(self) -> None:
        """Note that a body has ended in another way, which does not show whether bodies stall."""
        self._bodies.gave_up()


@define(eq=False)
class Candidate:
    """An upstream and its health.

    :ivar doubted: called with this candidate after each failed question of a client.
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
        """Ask a question; note in the health how it ends.

        :param is_probe: whether the question is a probe, and not for a client.
        """
        try:
            return await self._ask(question, clock, is_probe=is_probe)
        finally:
            self._tell_of_change()

    @property
    def is_away(self) -> bool:
        """Whether it is known not to answer, or has no say for another reason."""
        return self.health.is_away

    def is_left_out(self, error: NcpsError) -> bool:
        """Return whether an error of the upstream does not count, because it has no say."""
        could_not_tell = isinstance(error, Unavailable) or error.is_refusal
        return could_not_tell and not self.health.has_say

    def _tell_of_change(self) -> None:
        """Log once that the upstream is away, and once that it is back."""
        is_away = self.is_away
        if is_away == self._was_away:
            return
        self._was_away = is_away
        if is_away:
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
            if is_unwanted():  # it says nothing about a client's question
                health.gave_up()
                health.guess_failed(error.retry_after)
                raise
            health.failed(str(error), error.retry_after, began=began, is_probe=is_probe)
            if error.is_refusal:
                health.refused(str(error), is_probe=is_probe)
            if not is_probe:
                self.doubted()
            raise
        except BaseException:  # cancelled, or a fault of ours
            health.gave_up()
            raise
        health.answered(clock.seconds() - began, is_probe=is_probe)
        return answer
