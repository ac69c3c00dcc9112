"""Say: for how long an upstream's failure to answer counts."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.ask.health import AWAY_S, FAILURES, FIRST_PAUSE_S, PROVEN_S, TRIAL_S, Health


class SayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock)

    def fail(self, times: int = FAILURES, *, is_probe: bool = False) -> None:  # type: ignore[override]
        for _ in range(times):
            self.health.asked()
            self.health.failed("refused", began=self.clock.seconds(), is_probe=is_probe)

    def lose(self) -> None:
        self.fail()
        self.clock.advance(AWAY_S)

    def test_healthy_a_moment_ago(self) -> None:
        """Many failures at the same time cost an upstream its say only if they last."""
        self.fail(100)
        self.clock.advance(AWAY_S - 0.01)
        self.assertTrue(self.health.has_say)
        self.clock.advance(0.01)
        self.assertFalse(self.health.has_say)
        self.assertEqual("refused", self.health.why_left_out)

    def test_failures_now_and_then(self) -> None:
        """Without an open breaker an upstream is asked and has a say.

        It does not matter how long ago the first failure was.
        """
        self.fail(FAILURES - 1)
        self.clock.advance(100 * AWAY_S)
        self.assertTrue(self.health.has_say)

    def test_time_counts_from_the_question(self) -> None:
        """An upstream that was silent for six seconds did not work a moment ago."""
        began = self.clock.seconds()
        self.clock.advance(6)
        for _ in range(FAILURES):
            self.health.failed("late", began=began)
        self.assertFalse(self.health.has_say)

    def test_the_change_comes_within_the_tries_of_one_client(self) -> None:
        """Nix tries five times, after 0.25, 0.5, 1 and 2 s."""
        had = []
        for pause in (0.0, 0.25, 0.5, 1.0, 2.0):
            self.clock.advance(pause)
            if self.health.may_ask:
                self.fail(1)
            had.append(self.health.has_say)
        self.assertEqual([True, True, True, True, False], had)

    def test_answer_gives_it_back(self) -> None:
        """An answer, to a question or to a probe, returns the say."""
        for is_probe in (False, True):
            self.setUp()
            self.lose()
            self.health.answered(is_probe=is_probe)
            self.assertTrue(self.health.has_say)

    def test_upstream_that_answers_nothing_but_probes(self) -> None:
        """The first question that fails after an outage ends the say immediately, for good."""
        self.lose()
        self.health.answered(is_probe=True)
        self.fail(1)
        self.assertFalse(self.health.has_say)
        self.health.answered(is_probe=True)
        self.assertFalse(self.health.has_say)
        self.health.answered(is_good=False)
        self.assertTrue(self.health.has_say)
        self.fail(1)
        self.assertTrue(self.health.has_say)

    def test_trial_ends(self) -> None:
        """An outage of yesterday does not shorten the say of today."""
        self.lose()
        self.health.answered(is_probe=True)
        self.clock.advance(TRIAL_S)
        self.fail(1)
        self.assertTrue(self.health.has_say)

    def test_refusal_counts_at_once(self) -> None:
        """An expired token does not become valid within the tries of a client."""
        self.health.refused("status 401")
        self.assertEqual((False, "status 401"), (self.health.has_say, self.health.why_left_out))
        self.health.answered(is_probe=True)  # a public nix-cache-info
        self.assertFalse(self.health.has_say)
        self.health.answered()
        self.assertTrue(self.health.has_say)

    def test_refused_probe(self) -> None:
        """A bucket may refuse paths that do not exist; a path that it gives shows that it is open.

        Then its probes mean nothing for an hour, so that the log does not tell of it every minute.
        """
        self.health.refused("status 403", is_probe=True)
        self.health.answered(is_good=False)
        self.assertFalse(self.health.has_say)
        self.health.answered()
        self.health.refused("status 403", is_probe=True)
        self.assertTrue(self.health.has_say)
        self.clock.advance(PROVEN_S)
        self.health.refused("status 403", is_probe=True)
        self.assertFalse(self.health.has_say)

    def test_in_doubt_after_one_failure(self) -> None:
        """An upstream that failed is probed soon, so that an outage is noticed without clients."""
        self.assertFalse(self.health.is_in_doubt)
        self.fail(1)
        self.assertTrue(self.health.is_in_doubt)
        self.health.answered()
        self.assertFalse(self.health.is_in_doubt)

    def test_outage_before_any_client_came(self) -> None:
        """A daemon that starts without a network knows it after three probes."""
        for _ in range(FAILURES):
            self.fail(1, is_probe=True)
            self.clock.advance(FIRST_PAUSE_S)
        self.assertFalse(self.health.has_say)
