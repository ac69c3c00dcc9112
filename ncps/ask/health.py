"""Health of one upstream, learned from traffic: circuit breakers and its recent latency.

    closed --(FAILURES in a row, or Retry-After)--> open --(pause over)--> half-open
      ^------------------(an answer)---------------------------------------/   |
                                     open (pause doubled) <--(a failure)------/

Open: nobody asks. Half-open: one request or probe may ask, the others still count it as away.
A second breaker of the same kind is for bodies: an upstream whose heads are fine but whose NARs
stall is asked for no NAR, until one has come whole.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ncps.aio.backoff import EXACT, Backoff
from ncps.ask.say import Say

FAILURES = 3
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0  # well below the patience of downloads: they have to notice that it is back
MAX_RETRY_AFTER_S = 60.0
BACKOFF = Backoff(first_s=FIRST_PAUSE_S, longest_s=MAX_PAUSE_S, jitter=EXACT)
SLOWEST_HEDGE_S = 0.15
FASTEST_HEDGE_S = 0.02


class Breaker:
    """See the module; times are the clock's seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._failures = 0
        self._pauses = BACKOFF.pauses()
        self._open_until: float | None = None
        self._is_probing = False

    @property
    def is_closed(self) -> bool:
        """Whether everybody may ask."""
        return self._open_until is None

    @property
    def may_ask(self) -> bool:
        """Whether a request may go out now."""
        if self._open_until is None:
            return True
        return not self._is_probing and self._clock.seconds() >= self._open_until

    @property
    def wait_s(self) -> float:
        """Seconds until one may ask again; 0 if one may now."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - self._clock.seconds())

    def asked(self) -> None:
        """Note that a request goes out; one that goes out before its time is no probe."""
        if self._open_until is not None and self._clock.seconds() >= self._open_until:
            self._is_probing = True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0
        self._pauses = BACKOFF.pauses()
        self._open_until = None
        self._is_probing = False

    def failed(self, retry_after_s: float | None = None) -> None:
        """Count a failure, and open if that was enough."""
        self._failures += 1
        now = self._clock.seconds()
        asked_s = None if retry_after_s is None else min(MAX_RETRY_AFTER_S, retry_after_s)
        if self._open_until is not None and now < self._open_until:
            # Asked before it was known to be away: a hundred of these are still one failure.
            self._open_until = max(self._open_until, now + (asked_s or 0.0))
            return
        if asked_s is not None or self._open_until is not None or self._failures >= FAILURES:
            pause_s = next(self._pauses)
            self._open(pause_s if asked_s is None else asked_s)

    def gave_up(self) -> None:
        """Note that the request was called off by us: nothing was learned."""
        self._is_probing = False

    def _open(self, pause_s: float) -> None:
        self._is_probing = False
        self._open_until = self._clock.seconds() + pause_s


class Health:
    """What is known of one upstream's health; times are the clock's seconds.

    :ivar answered_at: when it last answered anything.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._answers = Breaker(clock)
        self._bodies = Breaker(clock)
        self._say = Say(clock)
        self._is_suspect = False
        self._latency_s: float | None = None
        self._deviation_s = 0.0
        self.answered_at = float("-inf")
        self.last_error = ""

    @property
    def is_healthy(self) -> bool:
        """Whether both breakers are closed."""
        return self._answers.is_closed and self._bodies.is_closed

    @property
    def has_say(self) -> bool:
        """Whether it matters that it could not tell; see `say`."""
        return self._say.has_say(is_open=not self._answers.is_closed)

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is away, or failed when it was last asked."""
        return not self.is_healthy or self._say.is_in_doubt

    @property
    def why_left_out(self) -> str:
        """Why it has no say."""
        return self._say.refusal or self.last_error or "it does not answer"

    @property
    def may_ask(self) -> bool:
        """Whether a request may go out now."""
        return self._answers.may_ask

    @property
    def may_fetch(self) -> bool:
        """Whether a NAR may be asked for now."""
        return self._answers.may_ask and self._bodies.may_ask

    @property
    def is_sick(self) -> bool:
        """Whether others are asked first: its breaker is open, or it is late with an answer."""
        return not self.is_healthy or self._is_suspect

    @property
    def latency_s(self) -> float:
        """Recent latency to the head of an answer; 0 while unknown, so that all get tried."""
        return self._latency_s or 0.0

    @property
    def hedge_s(self) -> float:
        """How long to wait for this upstream before another one is asked too."""
        if self._latency_s is None:
            return SLOWEST_HEDGE_S / 2
        usual = self._latency_s + 4 * self._deviation_s
        return min(SLOWEST_HEDGE_S, max(FASTEST_HEDGE_S, usual))

    @property
    def retry_after_s(self) -> float:
        """Seconds until it may be asked again, for a NAR too; 0 if it may be asked now."""
        return max(self._answers.wait_s, self._bodies.wait_s)

    def suspect(self) -> None:
        """Note that an answer is overdue."""
        self._is_suspect = True

    def asked(self) -> None:
        """Note that a request goes out; ends in `answered`, `failed` or `gave_up`."""
        self._answers.asked()

    def answered(
        self, latency_s: float | None = None, *, is_probe: bool = False, is_good: bool = True
    ) -> None:
        """Note an answer, whatever it said.

        :param is_probe: whether it was asked for its own sake.
        :param is_good: whether it gave what it was asked for.
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

        :param began: when it was asked; None: now.
        """
        self.last_error = reason
        self._say.failed(self._clock.seconds() if began is None else began, is_probe=is_probe)
        self._answers.failed(retry_after_s)

    def refused(self, reason: str, *, is_probe: bool = False) -> None:
        """Note that it wants to see other credentials than ours."""
        self._say.refused(reason, is_probe=is_probe)

    def gave_up(self) -> None:
        """Note that the request was called off by us: nothing was learned."""
        self._answers.gave_up()

    # Bodies of NARs

    def fetching(self) -> None:
        """Note that a NAR is asked for; ends in `delivered`, `stalled` or `let_go`."""
        self._bodies.asked()

    def delivered(self) -> None:
        """Note that a body has come to its end."""
        self._bodies.succeeded()

    def stalled(self, reason: str) -> None:
        """Note that a body stood still until our patience ended."""
        self.last_error = reason
        self._bodies.failed()

    def let_go(self) -> None:
        """Note that a body has ended otherwise: nothing was learned of whether they stall."""
        self._bodies.gave_up()
