"""A NAR whose first byte takes long, at one upstream and at several."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ask.health import FAILURES, SLOWEST_HEDGE_S
from ncps.ask.opening import BUSY_S, LOOKS
from ncps.cache.answers import ServedNar
from ncps.errors import Corrupt, NotFound, Unavailable
from tests.fakes.client import Client
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase

HELD = Script(hold=True)
OVERDUE = Unavailable("no answer within 53 s", timed_out=True)
AWAY = Unavailable("no answer within 6 s", timed_out=True)


class LateCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=300_000)
        self.key = self.sample.key
        for upstream in self.scripted:
            upstream.add(self.sample)
        self.learn(self.sample)
        self.health = [candidate.health for candidate in self.upstreams.candidates]

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)

    def assertServed(self, opening: Deferred[tuple[ServedNar, Client]]) -> None:
        _, client = self.successResultOf(opening)
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)


class AloneTests(LateCase):
    def restart(self) -> None:
        self.scripted = self.scripted[:1]
        super().restart()

    def test_only_upstream_is_waited_for(self) -> None:
        """An upstream that answers other requests may send its NAR late; nothing else suffers."""
        self.origin.scripts.append(HELD)
        opening = self.open(self.key)
        self.pass_time(40)
        self.assertNoResult(opening)
        self.assertTrue(self.health[0].is_healthy)
        self.assertEqual(1, len(self.origin.asked("nar")))
        self.origin.release()
        self.assertServed(opening)

    def test_it_is_asked_seldom_whether_it_is_there(self) -> None:
        """It gets a small question at intervals, unless it has answered another one since."""
        self.origin.scripts.append(HELD)
        opening = self.open(self.key)
        self.pass_time(40)
        self.assertLess(len(self.origin.asked("info")), 10)
        asked = len(self.origin.asked("info"))
        for _ in range(20):
            self.pass_time(2)
            self.health[0].answered(0.01)
        self.assertEqual(asked, len(self.origin.asked("info")))
        self.origin.release()
        self.assertServed(opening)

    def test_silent_upstream_is_given_up(self) -> None:
        """An upstream that answers nothing at all is given up within the deadline of a question."""
        self.origin.is_silent = True
        opening = self.open(self.key)
        self.pass_time(LOOKS.first_s)
        self.assertEqual((1, 2), (len(self.origin.asked("info")), self.origin.held))
        self.origin.fail_last(AWAY)
        self.assertEqual(0, self.origin.held, "the NAR was called off")
        self.pass_time(4)
        self.origin.fail_last(AWAY)
        error = self.failureResultOf(opening, Unavailable).value
        self.assertIn("answers nothing", str(error))
        self.assertTrue(error.timed_out)
        self.assertFalse(self.health[0].is_healthy)
        self.origin.is_silent = False

    def test_any_answer_is_a_sign_of_life(self) -> None:
        """An upstream without nix-cache-info, or with another fault, is there."""
        for info in (
            NotFound("status 404"),
            Corrupt("a page"),
            Unavailable("status 503", kind="status"),
        ):
            self.restart()
            self.learn(self.sample)
            self.origin.info = info
            self.origin.scripts.append(HELD)
            opening = self.open(self.key)
            self.pass_time(20)
            self.assertNoResult(opening)
            self.origin.release()
            self.assertServed(opening)
            self.store.objects.clear()
            self.catalog.records.clear()
            self.catalog.entries.clear()

    def test_patience_ends_once(self) -> None:
        """After the long deadline clients get one error; their upstream does not count as away."""
        self.origin.scripts.extend([HELD] * 2 * FAILURES)
        openings = []
        for _ in range(FAILURES):
            openings.append(self.open(self.key))
            self.pass_time(53)
            self.origin.release(OVERDUE)
            self.pass_time(1)
        for opening in openings:
            self.assertTrue(self.failureResultOf(opening, Unavailable).value.timed_out)
        self.assertTrue(self.health[0].is_healthy)
        self.assertEqual(FAILURES, len(self.origin.asked("nar")))

    def test_leaving_leaves_nothing(self) -> None:
        """A daemon that stops while it waits has no timer left; see `tearDown`."""
        self.origin.scripts.append(HELD)
        opening = self.open(self.key)
        self.pass_time(3)
        self.assertNoResult(opening)
        opening.addErrback(lambda _: None)


class RivalTests(LateCase):
    priorities: tuple[int, ...] = (10, 20, 30)

    def test_every_other_one_is_asked_before_patience_ends(self) -> None:
        """A rival that does not have the NAR, or is late, is followed by the next immediately."""
        self.origin.scripts.append(HELD)
        self.mirror.scripts.append(Script(error=Unavailable("status 500", kind="status")))
        opening = self.open(self.key)
        self.pass_time(2 * BUSY_S)
        self.assertServed(opening)
        self.assertEqual(1, len(self.scripted[2].asked("nar")))

    def test_loser_that_works_is_cancelled(self) -> None:
        """A request that no client waits for does not keep its place for a minute."""
        self.origin.scripts.append(HELD)
        opening = self.open(self.key)
        self.clock.advance(SLOWEST_HEDGE_S + 0.01)
        self.assertServed(opening)
        self.assertEqual(1, self.origin.held)
        self.pass_time(2)
        self.assertEqual(0, self.origin.held)
        self.assertTrue(self.health[0].is_healthy)

    def test_two_that_fail_at_once_find_the_next_once(self) -> None:
        """While a search for a rival runs, another reason to search changes nothing."""
        self.origin.scripts.append(HELD)
        self.mirror.scripts.append(HELD)
        opening = self.open(self.key)
        self.clock.advance(SLOWEST_HEDGE_S + 0.01)
        self.assertEqual(1, len(self.mirror.asked("nar")))
        third = self.scripted[2]
        third.is_silent = True
        self.clock.advance(SLOWEST_HEDGE_S + 0.01)  # the mirror is late, too
        self.assertEqual(1, third.held)
        self.mirror.fail_last(Unavailable("status 500", kind="status"))
        self.clock.advance(0.1)
        third.is_silent = False
        third.release()
        self.assertServed(opening)
        self.assertEqual(1, len(third.asked("nar")))
