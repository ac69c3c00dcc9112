"""Upstreams: the order in which they are asked, and the cost of a slow or silent one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.ask.choose import PATIENCE_BESIDE_S, PATIENCE_S, Found, Upstreams
from ncps.ask.health import AWAY_S, FAILURES, FIRST_PAUSE_S, SLOWEST_HEDGE_S, Candidate
from ncps.ask.policy import AllAway
from ncps.errors import Busy, Corrupt, Malformed, NcpsError, NotFound, Unavailable
from ncps.observe.metrics import Metrics
from ncps.ports import Upstream
from tests.fakes.metrics import series
from tests.fakes.upstream import ScriptedUpstream


class NotingUpstreams(Upstreams):
    """Upstreams of which each failure is noted before it is counted."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.failed: list[str] = []

    def count(self, candidate: Candidate, error: NcpsError) -> None:
        self.failed.append(candidate.upstream.name)
        super().count(candidate, error)


class UpstreamsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.metrics = Metrics()
        self.asked: list[str] = []
        self.answers: dict[str, Deferred[str]] = {}
        self.a, self.b, self.c = (ScriptedUpstream(name, 10) for name in "abc")
        self.upstreams = self.made(self.a, self.b, self.c)

    def made(self, *upstreams: Upstream) -> NotingUpstreams:
        return NotingUpstreams(self.clock, self.tasks, upstreams, self.metrics)

    async def question(self, upstream: Upstream) -> str:
        self.asked.append(upstream.name)
        answer = self.answers[upstream.name] = Deferred()
        return await answer

    def first(self, preferred: str = "") -> Deferred[Found[str]]:
        """Ask; `preferred` is the upstream with the best priority."""
        for upstream in (self.a, self.b, self.c):
            upstream.priority = 1 if upstream.base_url == preferred else 10
        return Deferred.fromCoroutine(self.upstreams.first("x", self.question))

    def fail_all(self) -> None:
        """Let all upstreams be known to be away."""
        for candidate in self.upstreams.candidates:
            for _ in range(FAILURES):
                candidate.health.failed("refused")

    def reply(self, name: str, error: Exception | None = None) -> None:
        if error is None:
            self.answers[name].callback(f"from {name}")
        else:
            self.answers[name].errback(error)


class UpstreamsTests(UpstreamsCase):
    # Order

    def test_order_by_priority_then_latency(self) -> None:
        """Local priority comes first; among equals the faster upstream is asked first."""
        ahead = ScriptedUpstream("z", 5)
        upstreams = self.made(self.a, self.b, ahead)
        upstreams.candidates[0].health.answered(0.2)
        upstreams.candidates[1].health.answered(0.1)
        self.assertEqual(["z", "b", "a"], [c.upstream.name for c in upstreams.ordered()])

    def test_failing_and_suspect_ones_are_asked_last(self) -> None:
        """An upstream that fails or is late is asked after those that work."""
        failing, late, _ = [c.health for c in self.upstreams.candidates]
        for _ in range(FAILURES):
            failing.failed("no")
        late.suspect()
        self.assertEqual("c", self.upstreams.ordered()[0].upstream.name)

    def test_reachable_and_names(self) -> None:
        """Whether one or any of the upstreams is not known to be away."""
        for candidate in self.upstreams.candidates[:2]:
            for _ in range(FAILURES):
                candidate.health.failed("no")
        self.assertTrue(self.upstreams.is_reachable())
        self.assertFalse(self.upstreams.is_reachable("http://a"))
        self.assertTrue(self.upstreams.is_reachable("http://c"))
        self.assertFalse(self.upstreams.is_reachable("http://gone"))
        self.assertFalse(self.made().is_reachable())
        self.upstreams.candidates[2].health.refused("status 403", is_probe=True)
        self.assertFalse(self.upstreams.is_reachable())
        self.assertEqual(
            ("a", None), (self.upstreams.names.get("http://a"), self.upstreams.names.get("?"))
        )

    def test_upstreams_are_replaced(self) -> None:
        """Their names are replaced, too; an upstream that stays keeps its health."""
        self.upstreams.candidates[0].health.suspect()
        new = ScriptedUpstream("d", 10)
        self.upstreams.replace((self.a, new))
        self.assertEqual({"http://a": "a", "http://d": "d"}, self.upstreams.names)
        self.assertEqual(
            [True, False], [each.health.is_asked_last for each in self.upstreams.candidates]
        )

    # Asking

    def test_good_answer_ends_the_round(self) -> None:
        """If the first upstream has the narinfo, no other one is asked."""
        asking = self.first()
        self.reply("a")
        found = self.successResultOf(asking)
        self.assertEqual((self.a, "from a"), (found.upstream, found.value))
        self.clock.advance(60)
        self.assertEqual(["a"], self.asked)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_refusal_passes_the_question_on_at_once(self) -> None:
        """An upstream that denies, sends something wrong, or hangs up, costs no waiting time."""
        asking = self.first("http://b")
        self.reply("b", NotFound("404"))
        self.reply("a", Corrupt("html"))
        self.reply("c")
        self.assertEqual("from c", self.successResultOf(asking).value)
        self.assertEqual(["b", "a", "c"], self.asked)
        self.assertEqual(["b", "a"], self.upstreams.failed)
        self.assertEqual({"a corrupt": 1}, series(self.metrics.upstream_errors))

    def test_silent_first_costs_less_than_200_ms(self) -> None:
        """A silent first upstream delays the next one's answer by less than 200 ms."""
        for latency in (0.001, 0.05, 5.0, None):
            self.setUp()
            if latency is not None:
                for _ in range(20):
                    self.upstreams.candidates[0].health.answered(latency)
            asking = self.first("http://a")
            self.clock.advance(SLOWEST_HEDGE_S)
            self.assertEqual(["a", "b"], self.asked[:2])
            self.reply("b")
            self.assertEqual("from b", self.successResultOf(asking).value)
        self.assertLess(SLOWEST_HEDGE_S, 0.2)

    def test_next_rounds_do_not_wait_for_the_silent_one(self) -> None:
        """Only the first request waits for the hedge: after that the silent one is asked last."""
        self.first()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.reply("b")
        self.asked.clear()
        self.first()
        self.assertEqual("b", self.asked[0])

    def test_slow_first_may_still_win(self) -> None:
        """After the second request, the first one's answer still counts."""
        asking = self.first()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.reply("a")
        self.assertEqual("from a", self.successResultOf(asking).value)
        self.reply("b")
        self.assertEqual([], self.tasks.names)

    def test_losers_run_on_and_are_learned_from(self) -> None:
        """A silent upstream is detected by its own deadline, long after the client has left."""
        self.first()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.reply("b")
        self.assertEqual(["ask a"], self.tasks.names)
        self.reply("a", Unavailable("late", timed_out=True))
        self.assertEqual("late", self.upstreams.candidates[0].health.last_error)
        self.assertEqual([], self.tasks.names)

    def test_failure_while_another_is_asked_asks_the_next_immediately(self) -> None:
        """If one of two fails, the third is asked without a wait for the hedge."""
        self.first()
        self.clock.advance(SLOWEST_HEDGE_S)
        self.reply("a", Unavailable("reset"))
        self.assertEqual(["a", "b", "c"], self.asked)

    def test_last_one_is_waited_for(self) -> None:
        """While an upstream is still asked there is no verdict, although the others have failed."""
        asking = self.first()
        self.reply("a", NotFound("404"))
        self.reply("b", NotFound("404"))
        self.clock.advance(5)
        self.assertNoResult(asking)
        self.reply("c", NotFound("404"))
        self.failureResultOf(asking, NotFound)

    def test_verdict_over_all(self) -> None:
        """If no upstream has the narinfo, the verdict has the error of each."""
        asking = self.first()
        self.reply("a", Unavailable("refused"))
        self.reply("b", NotFound("404"))
        self.reply("c", Corrupt("html"))
        error = self.failureResultOf(asking, Unavailable).value
        for text in ("a (refused)", "b (404)", "c (html)"):
            self.assertIn(text, str(error))

    def test_no_upstreams(self) -> None:
        """Without upstreams nothing is found, and that is known immediately."""
        self.upstreams = self.made()
        self.failureResultOf(self.first(), NotFound)

    def test_open_breaker_is_passed_by(self) -> None:
        """An upstream known to be away costs no time, and counts as "could not tell"."""
        for _ in range(FAILURES):
            self.upstreams.candidates[0].health.failed("refused")
        asking = self.first("http://a")
        self.assertEqual(["b"], self.asked)
        self.reply("b", NotFound("404"))
        self.reply("c", NotFound("404"))
        error = self.failureResultOf(asking, Unavailable).value
        self.assertIn("a (away (refused))", str(error))

    def test_all_away_is_told_at_once(self) -> None:
        """If all upstreams are known to be away, the client does not wait."""
        self.fail_all()
        self.failureResultOf(self.first(), Unavailable)

    def test_half_open_is_asked_by_one_only(self) -> None:
        """One request tries an upstream whose pause is over; the next request skips it."""
        self.fail_all()
        self.clock.advance(FIRST_PAUSE_S)
        self.first("http://a")
        self.first("http://a")
        self.assertEqual(["a", "b"], self.asked)

    def test_unforeseen_error_spoils_only_its_upstream(self) -> None:
        """A fault of ours with one upstream's answer is logged, and the next one is asked."""
        for error in (ZeroDivisionError(), Malformed("?")):
            self.setUp()
            self.fail_all()
            self.clock.advance(FIRST_PAUSE_S)
            asking = self.first("http://a")
            self.reply("a", error)
            self.assertEqual(1, len(self.flushLoggedErrors(type(error))))
            self.assertTrue(self.upstreams.candidates[0].health.may_ask)
            self.reply("b", NotFound("404"))
            self.reply("c", NotFound("404"))
            self.failureResultOf(asking, Corrupt)

    def test_client_that_leaves_ends_the_hedging(self) -> None:
        """When no client waits any more, no further upstream is asked."""
        asking = self.first()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.clock.advance(60)
        self.reply("a", NotFound("404"))
        self.assertEqual(["a"], self.asked)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_our_own_limits_spoil_no_health(self) -> None:
        """An upstream does not count as away because we ask too much of it."""
        for _ in range(FAILURES + 1):
            asking = self.first()
            for name in "abc":
                self.reply(name, Busy("waited"))
            self.assertIsInstance(self.failureResultOf(asking).value, Unavailable)
        self.assertTrue(all(c.health.is_healthy for c in self.upstreams.candidates))

    def test_stop_ends_the_round(self) -> None:
        """At shutdown no client waits for an upstream."""
        asking = self.first()
        stopping = Deferred.fromCoroutine(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.failureResultOf(asking, CancelledError)

    def test_synchronous_answers_of_many(self) -> None:
        """Dozens of upstreams that deny immediately are asked in one turn."""
        many = [ScriptedUpstream(f"u{n}") for n in range(50)]
        self.upstreams = self.made(*many)

        async def absent(_: Upstream) -> str:
            raise NotFound("404")

        coro: Coroutine[Any, Any, Found[str]] = self.upstreams.first("x", absent)
        self.failureResultOf(Deferred.fromCoroutine(coro), NotFound)
        self.assertEqual(50, len(self.upstreams.failed))


class NoSayTests(UpstreamsCase):
    """Some upstreams have been away for a while, or refuse us."""

    def lose(self, *numbers: int) -> list[Candidate]:
        candidates = [self.upstreams.candidates[number] for number in numbers]
        for candidate in candidates:
            for _ in range(FAILURES):
                candidate.health.failed("refused")
        self.clock.advance(AWAY_S)
        return candidates

    def test_the_others_denial_is_the_answer_and_not_remembered(self) -> None:
        """An upstream that is away for hours does not keep the others from denying."""
        self.lose(0)
        asking = self.first()
        for name in "bc":
            self.reply(name, NotFound("404"))
        self.reply("a", Unavailable("refused"))
        self.assertFalse(self.failureResultOf(asking, NotFound).value.is_certain)

    def test_silent_one_costs_less_than_200_ms(self) -> None:
        """When the others have denied, the silent upstream is tried again, briefly."""
        self.lose(0)
        asking = self.first()
        for name in "bc":
            self.reply(name, NotFound("404"))
        self.assertEqual(["b", "c", "a"], self.asked)
        self.clock.advance(PATIENCE_BESIDE_S)
        self.failureResultOf(asking, NotFound)
        self.assertLess(PATIENCE_BESIDE_S, 0.2)
        self.reply("a", NotFound("404"))
        self.assertTrue(self.upstreams.candidates[0].health.has_say)

    def test_one_that_is_back_is_believed(self) -> None:
        """The first answer of an upstream that is back counts."""
        self.lose(0, 1, 2)
        asking = self.first()
        self.reply(self.asked[0])
        self.successResultOf(asking)

    def test_all_are_away(self) -> None:
        """No client waits for long if all are silent; the health of each is updated later."""
        self.lose(0, 1, 2)
        asking = self.first()
        self.clock.pump([PATIENCE_S / 4] * 6)
        error = self.failureResultOf(asking, AllAway).value
        self.assertIn("no upstream could be asked: ", error.told)
        for name in self.asked:
            self.reply(name, Unavailable("late", timed_out=True))
        self.assertEqual([], self.tasks.names)

    def test_one_that_was_healthy_a_moment_ago_is_waited_for(self) -> None:
        """The silence of an upstream that worked a moment ago is no denial."""
        self.lose(0, 1)
        asking = self.first()
        self.reply("c", Unavailable("refused"))
        for name in "ab":
            if name in self.answers:
                self.reply(name, Unavailable("refused"))
        error = self.failureResultOf(asking, Unavailable).value
        self.assertNotIsInstance(error, AllAway)

    def test_refusal(self) -> None:
        """An upstream that wants another token has no say after its first answer."""
        asking = self.first()
        self.reply("a", Unavailable("status 401", is_refusal=True))
        self.reply("b", NotFound("404"))
        self.reply("c", NotFound("404"))
        self.assertFalse(self.failureResultOf(asking, NotFound).value.is_certain)
        self.assertEqual("away: a (status 401)", self.upstreams.trouble)

    def test_refusal_of_all_that_is_asked(self) -> None:
        """If the probe gets 403, a path that gets 403 is not denied."""
        for candidate in self.upstreams.candidates:
            candidate.health.refused("status 403", is_probe=True)
        asking = self.first()
        for name in "abc":
            self.reply(name, NotFound("status 403", is_refusal=True))
        self.failureResultOf(asking, AllAway)
        self.setUp()
        asking = self.first()
        for name in "abc":
            self.reply(name, NotFound("status 403", is_refusal=True))
        self.assertTrue(self.failureResultOf(asking, NotFound).value.is_certain)

    def test_one_line_at_the_change_and_none_for_each_request(self) -> None:
        """The log says that an upstream is away, and that it is back."""
        with capturedLogs() as events:
            for _ in range(30):
                asking = self.first()
                for name in "abc":
                    if name in self.answers and not self.answers[name].called:
                        kind = Unavailable("refused") if name == "a" else NotFound("404")
                        self.reply(name, kind)
                self.clock.advance(1)
                asking.addErrback(lambda _: None)
            self.answer(self.upstreams.candidates[0])
        seen = [event["log_format"] for event in events]
        self.assertEqual(1, seen.count("upstream {upstream} is away: {reason}"))
        failures = seen.count("upstream {upstream} failed for {what}: {reason}")
        self.assertLessEqual(failures, FAILURES)
        self.assertEqual(1, seen.count("upstream {upstream} answers again"))

    def answer(self, candidate: Candidate) -> None:
        async def answer(_: Upstream) -> str:
            return ""

        self.successResultOf(Deferred.fromCoroutine(candidate.ask(answer, self.clock)))
