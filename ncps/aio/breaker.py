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
    """The state of one server: whether a request may go out; times are the clock's seconds.

    :param failures: the number of failures in a row that opens the breaker.
    :param backoff: for how long the breaker stays open.
    :param longest_asked_s: the longest pause that the server may ask for.
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
        """Whether all requests may go out."""
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
        """Record that a request goes out; a request before the end of the pause is no probe."""
        if self._open_until is not None and self._clock.seconds() >= self._open_until:
            self._is_probing = True

    def succeeded(self) -> None:
        """Close the breaker: the server answered."""
        self._failures = 0
        self._pauses = self._backoff.pauses()
        self._open_until = None
        self._is_probing = False

    def failed(self, retry_after_s: float | None = None) -> None:
        """Count a failure, and open the breaker if it was the last one allowed.

        :param retry_after_s: the pause that the server asked for, if any.
        """
        self._failures += 1
        now = self._clock.seconds()
        asked_s = None if retry_after_s is None else min(self._longest_asked_s, retry_after_s)
        if self._open_until is not None and now < self._open_until:
            # The request went out before the breaker opened: a hundred of them are one failure.
            self._open_until = max(self._open_until, now + (asked_s or 0.0))
            return
        if asked_s is not None or self._open_until is not None or self._failures >= self._most:
            pause_s = next(self._pauses)
            self._open(pause_s if asked_s is None else asked_s)

    def gave_up(self) -> None:
        """Record that this side cancelled the request: the server may be well or not."""
        self._is_probing = False

    def _open(self, pause_s: float) -> None:
        self._is_probing = False
        self._open_until = self._clock.seconds() + pause_s
