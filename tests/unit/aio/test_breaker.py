"""Breaker: closed, open and half-open."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.backoff import EXACT, Backoff
from ncps.aio.breaker import Breaker


class BreakerStateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.breaker = Breaker(
            self.clock,
            failures=2,
            backoff=Backoff(first_s=1.0, longest_s=4.0, jitter=EXACT),
            longest_asked_s=60.0,
        )

    def fail(self, times: int = 1, retry_after_s: float | None = None) -> None:  # type: ignore[override]
        for _ in range(times):
            self.breaker.asked()
            self.breaker.failed(retry_after_s)

    def state(self) -> tuple[bool, bool, float]:
        return self.breaker.is_closed, self.breaker.may_ask, self.breaker.wait_s

    def test_it_opens_after_failures_in_a_row(self) -> None:
        """A success between failures resets the count."""
        self.fail()
        self.breaker.succeeded()
        self.fail()
        self.assertEqual((True, True, 0.0), self.state())
        self.fail()
        self.assertEqual((False, False, 1.0), self.state())

    def test_one_probe_goes_out_when_the_pause_is_over(self) -> None:
        """A failed probe doubles the pause up to the longest; a success closes the breaker."""
        self.fail(2)
        for pause_s in (1.0, 2.0, 4.0, 4.0):
            self.assertEqual(pause_s, self.breaker.wait_s)
            self.clock.advance(pause_s)
            self.assertTrue(self.breaker.may_ask)
            self.breaker.asked()
            self.assertFalse(self.breaker.may_ask)
            self.breaker.failed()
        self.clock.advance(4.0)
        self.breaker.asked()
        self.breaker.succeeded()
        self.assertEqual((True, True, 0.0), self.state())

    def test_a_probe_that_is_called_off_teaches_nothing(self) -> None:
        """After a cancelled probe the next request may be the probe."""
        self.fail(2)
        self.clock.advance(1.0)
        self.breaker.asked()
        self.breaker.gave_up()
        self.assertEqual((False, True, 0.0), self.state())

    def test_a_pause_that_is_asked_for_opens_at_once(self) -> None:
        """A pause that the server asks for has a limit."""
        self.fail(retry_after_s=7.0)
        self.assertEqual((False, False, 7.0), self.state())
        self.breaker.failed(1000.0)
        self.assertEqual(60.0, self.breaker.wait_s)
