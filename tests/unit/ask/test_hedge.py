"""A hedge asks a second upstream for a NAR whose head is late."""

from __future__ import annotations

from ncps.ask.health import FAILURES, FIRST_PAUSE_S, SLOWEST_HEDGE_S
from ncps.ask.opening import BUSY_S
from ncps.errors import Corrupt, Unavailable
from tests.fakes.samples import sample
from tests.fakes.upstream import HONEST, Script
from tests.unit.cache.rig import CoreCase

SIZE = 300_000
LATE_S = SLOWEST_HEDGE_S + 0.01
SILENT = Unavailable("no answer within 6 s", timed_out=True)
STALLED = Unavailable("no byte for 20 s", timed_out=True)


class HedgeTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.key = self.sample.key
        for upstream in (self.origin, self.mirror):
            upstream.add(self.sample)
        self.learn(self.sample)
        self.health = [candidate.health for candidate in self.upstreams.candidates]

    def asked(self) -> list[int]:
        return [len(upstream.asked("nar")) for upstream in (self.origin, self.mirror)]

    def test_silent_upstream_costs_less_than_200_ms(self) -> None:
        """The NAR comes from the next one, and the silent one is asked last after that."""
        self.assertLess(SLOWEST_HEDGE_S, 0.2)
        self.origin.otherwise = Script(hold=True)
        opening = self.open(self.key)
        self.clock.advance(SLOWEST_HEDGE_S - 0.01)
        self.assertEqual(([1, 0], True), (self.asked(), not opening.called))
        self.clock.advance(0.02)
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)
        self.assertTrue(self.health[0].is_asked_last)
        self.origin.release(SILENT)
        self.assertEqual("no answer within 6 s", self.health[0].last_error)
        second = sample("second", SIZE)
        for upstream in (self.origin, self.mirror):
            upstream.add(second)
        self.learn(second)
        self.download(second.key)
        self.assertEqual([1, 2], self.asked())

    def test_quick_upstream_has_no_rival(self) -> None:
        """While heads come in time, no other upstream is asked."""
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        self.clock.advance(SLOWEST_HEDGE_S - 0.01)
        self.origin.release()
        self.successResultOf(opening)
        self.assertEqual([1, 0], self.asked())

    def test_head_that_comes_too_late_is_closed(self) -> None:
        """The body of the loser is closed; nothing of it is used."""
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        self.successResultOf(opening)
        self.origin.release()
        self.assertEqual(([1, 1], 0), (self.asked(), self.origin.bodies))

    def test_late_head_that_still_wins(self) -> None:
        """If the first upstream answers before its rival, its answer is used."""
        self.origin.scripts.append(Script(hold=True))
        self.mirror.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        self.assertEqual([1, 1], self.asked())
        self.origin.release()
        nar, _ = self.successResultOf(opening)
        self.assertEqual("a.example.org", nar.upstream)
        self.mirror.release()
        self.assertEqual(0, self.mirror.bodies)

    def test_busy_upstream_is_waited_for_longer(self) -> None:
        """An upstream that answers other requests is not away: a second transfer is expensive."""
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        for _ in range(3):
            self.clock.advance(SLOWEST_HEDGE_S / 2)
            self.health[0].answered(0.01)
            self.clock.advance(SLOWEST_HEDGE_S / 2)
        self.assertEqual([1, 0], self.asked())
        self.clock.pump([SLOWEST_HEDGE_S] * int(BUSY_S / SLOWEST_HEDGE_S))
        self.assertEqual([1, 1], self.asked())
        self.successResultOf(opening)
        self.assertFalse(self.health[0].is_asked_last)
        self.origin.release()

    def test_both_fail(self) -> None:
        """If no upstream sends a head, the round continues as without a rival."""
        self.origin.otherwise = Script(hold=True)
        self.mirror.otherwise = Script(error=Unavailable("refused"))
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        self.assertNoResult(opening)
        self.origin.otherwise = HONEST
        self.origin.release(SILENT)
        self.clock.advance(0.3)
        self.successResultOf(opening)

    def test_first_fails_while_the_rival_is_asked(self) -> None:
        """If the first upstream fails, its rival is waited for."""
        self.origin.scripts.append(Script(hold=True))
        self.mirror.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        self.origin.release(Corrupt("not HTTP"))
        self.assertNoResult(opening)
        self.mirror.release()
        nar, _ = self.successResultOf(opening)
        self.assertEqual("b.example.org", nar.upstream)

    def test_rival_whose_narinfo_is_not_to_be_had(self) -> None:
        """If no other upstream can be asked, the first one's deadline decides."""
        self.mirror.narinfos.clear()
        self.origin.scripts.append(Script(hold=True))
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        self.assertNoResult(opening)
        self.origin.release()
        self.successResultOf(opening)
        self.assertEqual([1, 0], self.asked())

    def test_stop_while_two_are_asked(self) -> None:
        """At shutdown both requests end."""
        for upstream in (self.origin, self.mirror):
            upstream.otherwise = Script(hold=True)
        opening = self.open(self.key)
        self.clock.advance(LATE_S)
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.failureResultOf(opening, Unavailable)

    def test_resume_is_hedged_from_the_byte_there_is(self) -> None:
        """Also in mid-file, the rival is asked for the rest."""
        self.origin.scripts.extend([Script(cut_at=100_000), Script(hold=True)])
        client = self.client(self.key)
        self.clock.advance(LATE_S)
        self.successResultOf(client.done)
        self.assertEqual([(self.sample.url, 100_000)], self.mirror.asked("nar"))
        self.assertEqual(self.sample.file, client.data)
        self.origin.release(SILENT)


class StallTests(CoreCase):
    """Bodies that stall after good heads."""

    def test_stalling_bodies_open_a_breaker_of_their_own(self) -> None:
        """After some stalls no NAR is requested there, although narinfos and probes work."""
        health = self.upstreams.candidates[0].health
        samples = [sample(f"path{n}", SIZE) for n in range(FAILURES + 2)]
        for upstream in (self.origin, self.mirror):
            upstream.add(*samples)
        self.learn(*samples)
        for one in samples[:FAILURES]:
            self.assertTrue(health.may_fetch)
            self.origin.scripts.append(Script(stall_at=0))
            opening = self.open(one.key)
            self.origin.release(STALLED)
            _, client = self.successResultOf(opening)
            self.successResultOf(client.done)
            health.answered(0.01)
        self.assertEqual(
            (True, False, False), (health.may_ask, health.may_fetch, health.is_healthy)
        )
        self.assertIn("no byte for 20 s", health.last_error)
        before = len(self.origin.asked("nar"))
        self.download(samples[FAILURES].key)
        self.assertEqual(before, len(self.origin.asked("nar")))
        self.clock.advance(FIRST_PAUSE_S)
        self.assertTrue(health.may_fetch)
        self.mirror.is_away = True
        self.download(samples[FAILURES + 1].key)
        self.assertTrue(health.is_healthy)
