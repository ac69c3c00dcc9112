"""Health: the circuit breaker and the latency of one upstream."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.ask.health import (
    FAILURES,
    FASTEST_HEDGE_S,
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    MAX_RETRY_AFTER_S,
    SLOWEST_HEDGE_S,
    Health,
)


class BreakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock)

    def fail(self, times: int = 1, retry_after_s: float | None = None) -> None:  # type: ignore[override]
        for _ in range(times):
            self.health.asked()
            self.health.failed("refused", retry_after_s)

    def test_new_upstream_is_healthy(self) -> None:
        """An upstream that was never asked counts as working."""
        self.assertTrue(self.health.is_healthy)
        self.assertTrue(self.health.may_ask)
        self.assertEqual(
            (0.0, 0.0, ""),
            (self.health.retry_after_s, self.health.latency_s, self.health.last_error),
        )

    def test_breaker_opens_after_failures_in_a_row(self) -> None:
        """After some failures in a row no request is sent for a while."""
        self.fail(FAILURES - 1)
        self.assertTrue(self.health.may_ask)
        self.fail()
        self.assertFalse(self.health.is_healthy)
        self.assertFalse(self.health.may_ask)
        self.assertEqual(FIRST_PAUSE_S, self.health.retry_after_s)
        self.assertEqual("refused", self.health.last_error)

    def test_answer_in_between_starts_the_count_again(self) -> None:
        """Single failures do not open the breaker."""
        for _ in range(10):
            self.fail(FAILURES - 1)
            self.health.answered()
        self.assertTrue(self.health.is_healthy)
        self.assertEqual("", self.health.last_error)

    def test_half_open_lets_one_ask(self) -> None:
        """After the pause one request may try; the others still skip the upstream."""
        self.fail(FAILURES)
        self.clock.advance(FIRST_PAUSE_S)
        self.assertTrue(self.health.may_ask)
        self.assertFalse(self.health.is_healthy)
        self.health.asked()
        self.assertFalse(self.health.may_ask)
        self.health.answered(0.1)
        self.assertTrue(self.health.may_ask)
        self.assertTrue(self.health.is_healthy)

    def test_failed_probes_double_the_pause_up_to_a_bound(self) -> None:
        """An upstream that stays away is tried less and less often, but never given up."""
        self.fail(FAILURES)
        pauses = []
        for _ in range(8):
            pauses.append(self.health.retry_after_s)
            self.clock.advance(self.health.retry_after_s)
            self.assertTrue(self.health.may_ask)
            self.fail()
        self.assertEqual([1, 2, 4, 8, *[MAX_PAUSE_S] * 4], pauses)

    def test_recovery_forgets_the_doubling(self) -> None:
        """The next outage begins with a short pause again."""
        self.fail(FAILURES)
        self.clock.advance(FIRST_PAUSE_S)
        self.fail()
        self.clock.advance(2 * FIRST_PAUSE_S)
        self.health.asked()
        self.health.answered()
        self.fail(FAILURES)
        self.assertEqual(FIRST_PAUSE_S, self.health.retry_after_s)

    def test_hundred_failures_at_once_are_one_outage(self) -> None:
        """Requests that ran when the upstream failed do not prolong its pause."""
        for _ in range(100):
            self.health.asked()
        for _ in range(100):
            self.health.failed("reset")
        self.assertEqual(FIRST_PAUSE_S, self.health.retry_after_s)
        self.clock.advance(FIRST_PAUSE_S)
        self.assertTrue(self.health.may_ask)

    def test_request_that_goes_out_before_its_time_is_no_probe(self) -> None:
        """If it fails while the breaker is open, the next probe may still ask."""
        self.fail(FAILURES)
        self.health.asked()
        self.health.failed("refused")
        self.clock.advance(FIRST_PAUSE_S)
        self.assertTrue(self.health.may_ask)

    def test_retry_after_is_respected_within_reason(self) -> None:
        """An upstream that asks for a pause gets it immediately, up to a bound."""
        self.fail(1, 7.0)
        self.assertEqual(7.0, self.health.retry_after_s)
        self.assertFalse(self.health.may_ask)
        self.clock.advance(7)
        self.fail(1, 1e9)
        self.assertEqual(MAX_RETRY_AFTER_S, self.health.retry_after_s)

    def test_later_retry_after_prolongs_the_pause(self) -> None:
        """A late answer with a longer Retry-After counts."""
        self.fail(FAILURES)
        self.health.failed("429", 20.0)
        self.assertEqual(20.0, self.health.retry_after_s)
        self.health.failed("429", 1.0)
        self.assertEqual(20.0, self.health.retry_after_s)

    def test_cancelled_probe_lets_another_one_try(self) -> None:
        """A probe that we cancelled says nothing."""
        self.fail(FAILURES)
        self.clock.advance(FIRST_PAUSE_S)
        self.health.asked()
        self.health.gave_up()
        self.assertTrue(self.health.may_ask)

    def test_suspect_until_it_answers(self) -> None:
        """An upstream whose answer is overdue is suspect until it answers."""
        self.health.suspect()
        self.assertTrue(self.health.is_asked_last)
        self.health.answered()
        self.assertFalse(self.health.is_asked_last)


class LatencyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.health = Health(Clock())

    def test_hedge_of_the_unknown(self) -> None:
        """For an upstream that was never asked, the wait is less than the longest."""
        self.assertEqual(SLOWEST_HEDGE_S / 2, self.health.hedge_s)

    def test_hedge_follows_latency_within_bounds(self) -> None:
        """A rival for a fast upstream is asked soon, for a slow one after 150 ms at most."""
        for _ in range(50):
            self.health.answered(0.001)
        self.assertEqual(FASTEST_HEDGE_S, self.health.hedge_s)
        for _ in range(100):
            self.health.answered(0.06)
        self.assertAlmostEqual(0.06, self.health.latency_s, places=2)
        self.assertTrue(0.06 < self.health.hedge_s < 0.1)
        for _ in range(50):
            self.health.answered(2.0)
        self.assertEqual(SLOWEST_HEDGE_S, self.health.hedge_s)
        self.assertLess(SLOWEST_HEDGE_S, 0.2)
