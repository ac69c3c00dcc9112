"""Breaker: a circuit breaker, which sends no requests to a server that does not answer.

    closed --(failures in a row, or a pause asked for)--> open --(pause over)--> half-open
      ^-----------------(a success)----------------------------------------------/   |
                                       open (pause doubled) <--(a failure)----------/

Open: no request goes out. Half-open: one request goes out, as a probe.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ncps.aio.backoff import Backoff


class Breaker:
    """Counts failures, and says when a request may go out; times are the clock's seconds.

    :param failures: as many in a row open it.
    :param backoff: how long it stays open.
    :param longest_asked_s: the longest pause that the other side may ask for.
    """

    def __init__(
        self, clock: IReactorTime, *, failures: int, backoff: Backoff, longest_asked_s: float
    ) -> None:
        self._clock = clock
        self._most = failures
        self._backoff = backoff
        self._longest_asked_s = longest_asked_s
        self._failures = 0
        self._pauses = backoff.pauses()
        self._open_until: float | None = None
        self._is_probing = False

    @property
    def is_closed(self) -> bool:
        """Whether every request may ask."""
        return self._open_until is None

    @property
    def may_ask(self) -> bool:
        """Whether a request may go out now."""
        if self._open_until is None:
            return True
        return not self._is_probing and self._clock.seconds() >= self._open_until

    @property
    def wait_s(self) -> float:
        """Seconds until a request may go out again; 0 if it may now."""
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
        self._pauses = self._backoff.pauses()
        self._open_until = None
        self._is_probing = False

    def failed(self, retry_after_s: float | None = None) -> None:
        """Count a failure, and open if that was enough."""
        self._failures += 1
        now = self._clock.seconds()
        asked_s = None if retry_after_s is None else min(self._longest_asked_s, retry_after_s)
        if self._open_until is not None and now < self._open_until:
            # Asked before it was known to be away: a hundred of these are still one failure.
            self._open_until = max(self._open_until, now + (asked_s or 0.0))
            return
        if asked_s is not None or self._open_until is not None or self._failures >= self._most:
            pause_s = next(self._pauses)
            self._open(pause_s if asked_s is None else asked_s)

    def gave_up(self) -> None:
        """Note that the request was called off by us: nothing was learned."""
        self._is_probing = False

    def _open(self, pause_s: float) -> None:
        self._is_probing = False
        self._open_until = self._clock.seconds() + pause_s
