"""Probes: checking the health of upstreams in the background."""

from __future__ import annotations

from ncps.ask.health import FAILURES, FIRST_PAUSE_S
from ncps.ask.probes import FAILING_S, HEALTHY_S, REFUSED_S, Probes
from ncps.cache.answers import Absent
from ncps.errors import Corrupt, NotFound
from ncps.nix.cacheinfo import CacheInfo
from tests.unit.cache.rig import CoreCase


class ProbesTests(CoreCase):
    def probe(self) -> None:
        self.get(self.probes.probe(self.upstreams.candidates[0]))

    def setUp(self) -> None:
        super().setUp()
        self.probes = Probes(self.clock, self.tasks, self.upstreams)
        self.health = self.upstreams.candidates[0].health

    def test_any_answer_will_do(self) -> None:
        """An upstream that answers works, also if the answer is an error."""
        for answer in (NotFound("404"), Corrupt("html")):
            for _ in range(FAILURES):
                self.health.failed("refused")
            self.clock.advance(FIRST_PAUSE_S)
            self.origin.info = answer
            self.probe()
            self.assertTrue(self.health.is_healthy)

    def test_open_breaker_is_respected(self) -> None:
        """An upstream is not probed during its pause."""
        for _ in range(FAILURES):
            self.health.failed("refused")
        self.probe()
        self.assertEqual([], self.origin.log)

    def test_probed_rarely_while_it_works_and_often_while_it_fails(self) -> None:
        """A recovery is noticed within seconds, and a working upstream gets a request a minute."""
        self.probes.start()
        self.assertEqual(1, len(self.origin.log))
        self.clock.advance(HEALTHY_S)
        self.assertEqual(2, len(self.origin.log))
        for _ in range(FAILURES):
            self.health.failed("refused")
        self.origin.is_away = True
        self.clock.advance(HEALTHY_S)
        self.assertFalse(self.health.is_healthy)
        self.origin.is_away = False
        self.clock.pump([FAILING_S] * 12)
        self.assertTrue(self.health.is_healthy)

    def test_outage_is_noticed_without_clients(self) -> None:
        """After one failure the next probe comes soon; without a network, 3 s are enough."""
        self.origin.is_away = self.mirror.is_away = True
        self.probes.start()
        self.clock.pump([FAILING_S] * 3)
        self.assertEqual([False, False], [c.health.has_say for c in self.upstreams.candidates])
        self.origin.is_away = False
        self.clock.pump([FAILING_S] * 6)
        self.assertTrue(self.health.has_say)

    def test_refusal_is_looked_at_now_and_then(self) -> None:
        """An upstream that refuses even its nix-cache-info is not asked each second for ever."""
        self.origin.info = NotFound("status 403", is_refusal=True)
        self.probes.start()
        self.assertFalse(self.health.has_say)
        for _ in range(6):
            self.clock.advance(REFUSED_S)
        self.assertEqual(7, len(self.origin.log))
        self.origin.info = CacheInfo()
        self.clock.advance(REFUSED_S)
        self.assertTrue(self.health.has_say)

    def test_one_question_that_came_to_nothing_is_followed_up(self) -> None:
        """Two seconds after a failed question, an upstream is known to be away."""
        self.probes.start()
        self.clock.advance(1)
        self.origin.is_away = self.mirror.is_away = True
        self.start(self.narinfos.get("0" * 32)).addErrback(lambda _: None)
        self.clock.pump([FAILING_S] * 2)
        self.assertEqual([False, False], [c.health.has_say for c in self.upstreams.candidates])
        self.refused(self.narinfos.get("0" * 32), Absent)
        self.origin.is_away = self.mirror.is_away = False
        self.clock.pump([FAILING_S] * 12)
        self.assertTrue(self.health.has_say)
        before = len(self.origin.log)
        self.clock.pump([FAILING_S] * 12)
        self.assertEqual(before, len(self.origin.log))
