"""Tests of the time for which a lease in Redis is certainly held, and of checks of a Redis."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused, Unavailable
from ncps.locks.redis.address import Login, RedisAddress
from ncps.locks.redis.checks import Identities, facts, judge
from ncps.locks.redis.client import NotSent
from ncps.locks.redis.grant import RedisGrant
from ncps.locks.redis.node import RELEASE, RENEW, TAKE
from tests.contract.running import start
from tests.unit.locks.redis.scripted import PLACE, backend_of


class GrantTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend, (self.client,) = backend_of(self.clock, 1)

    def take(self) -> RedisGrant:
        grant = self.successResultOf(start(self.backend.take("a")))
        assert isinstance(grant, RedisGrant)
        return grant

    def give_back(self, grant: RedisGrant) -> None:
        self.client.answer = 1
        self.successResultOf(start(grant.give_back()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_certain_from_when_the_question_was_sent(self) -> None:
        """A lease counts from the sending of the question, minus the drift of clocks."""
        answer: Deferred[int] = Deferred()
        self.client.answer = answer
        taking = start(self.backend.take("a"))
        self.clock.advance(3)
        self.client.answer = Unavailable("away")
        answer.callback(7)
        grant = self.successResultOf(taking)
        self.assertEqual(grant.fence, 7)
        self.clock.advance(8.8)
        self.assertFalse(grant.is_lost)
        self.clock.advance(0.1)
        self.assertTrue(grant.is_lost)
        self.give_back(grant)

    def test_it_is_renewed_at_a_third_of_its_time(self) -> None:
        """Renewals keep a lease for ever, and stop when it is given back."""
        grant = self.take()
        self.client.answer = 1
        self.clock.pump([1.0] * 60)
        self.assertFalse(grant.is_lost)
        self.assertEqual(self.client.asked, [TAKE] + [RENEW] * 15)
        self.give_back(grant)
        self.assertEqual(self.client.asked[-1], RELEASE)

    def test_renewals_that_fail_are_repeated_sooner(self) -> None:
        """Failed renewals are repeated sooner, until the TTL is over."""
        grant = self.take()
        self.client.answer = Unavailable("away")
        self.clock.pump([0.5] * 16)
        self.assertFalse(grant.is_lost)
        self.assertEqual(self.client.asked.count(RENEW), 5)
        self.client.answer = 1
        self.clock.advance(1)
        self.clock.advance(11)
        self.assertFalse(grant.is_lost)
        self.give_back(grant)

    def test_lost_is_lost(self) -> None:
        """A late renewal, or another token, ends the lease for ever."""
        grant = self.take()
        answer: Deferred[int] = Deferred()
        self.client.answer = answer
        self.clock.advance(4)
        self.clock.advance(8)
        self.assertTrue(grant.is_lost)
        answer.callback(1)
        self.assertTrue(grant.is_lost)
        self.give_back(grant)
        self.client.answer = 8
        grant = self.take()
        self.client.answer = 0
        self.clock.advance(4)
        self.assertTrue(grant.is_lost)
        self.give_back(grant)

    def test_an_attempt_without_an_answer_is_undone(self) -> None:
        """An attempt without an answer is undone later; an unsent one needs no undoing."""
        self.client.answer = Unavailable("no answer", timed_out=True)
        self.failureResultOf(start(self.backend.take("a")), Unavailable)
        self.assertEqual(self.client.asked, [TAKE, RELEASE])
        self.client.is_up = False
        self.failureResultOf(start(self.backend.take("a")), Unavailable)
        self.client.answer = NotSent("away")
        self.failureResultOf(start(self.backend.take("a")), NotSent)
        self.assertEqual(self.client.asked[2:], [TAKE, TAKE])

    def test_a_release_that_fails_raises_no_error(self) -> None:
        """If the release fails, the lease expires."""
        grant = self.take()
        self.client.answer = Unavailable("away")
        self.successResultOf(start(grant.give_back()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_process_has_the_lease(self) -> None:
        """An attempt that finds the key of another holder gets no lease."""
        self.client.answer = 0
        self.assertIsNone(self.successResultOf(start(self.backend.take("a"))))


class PlaceTests(SynchronousTestCase):
    def test_it_shows_itself_without_secrets(self) -> None:
        """The text has the address, and no part of the login."""
        login = Login(username="me", password="hunter2")
        place = RedisAddress(
            addresses=(("a", 1), ("b", 2)),
            timeout_s=2.0,
            master="m",
            login=login,
            sentinel_login=login,
        )
        self.assertEqual(str(place), "Redis m (Sentinel a:1, b:2)")
        self.assertEqual(str(PLACE), "Redis (redis:6379)")
        self.assertNotIn("hunter2", repr(place))


class JudgeTests(SynchronousTestCase):
    GOOD = "# Server\r\nredis_version:7.0.15\r\n\r\nrole:master\r\nmaxmemory:0\r\n"

    def test_a_good_server(self) -> None:
        """The answer to INFO is read, without a line in the log."""
        known = facts(self.GOOD + "maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n")
        self.assertEqual(known["redis_version"], "7.0.15")
        judge("x", known)
        judge("x", {})

    def test_servers_that_will_not_do(self) -> None:
        """Each unsuitable server is refused with a remedy."""
        for line, expected in (
            ("redis_version:4.0.9", "Redis 5 or newer"),
            ("cluster_enabled:1", "name a single server"),
            ("role:slave", "master"),
            ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru", "noeviction"),
            ("maxmemory:1000\r\nmaxmemory_policy:volatile-lru", "noeviction"),
        ):
            error = self.assertRaises(Refused, judge, "x", facts(f"{self.GOOD}{line}\r\n"))
            self.assertIn(expected, str(error))


class IdentityTests(SynchronousTestCase):
    def test_two_addresses_of_one_server(self) -> None:
        """A second address is refused, and both are named; a moved server is accepted."""
        known = Identities()
        known.enter("place a", "a:1", "x")
        known.enter("place a", "a:1", "x")
        error = self.assertRaises(Refused, known.enter, "place b", "b:1", "x")
        for part in ("b:1 is the same Redis server as a:1", "cache-redis-addrs"):
            self.assertIn(part, str(error))
        known.leave("place a")
        known.enter("place b", "b:1", "x")
        known.enter("place a", "a:1", "y")
        known.leave("nowhere")

    def test_servers_that_report_nothing(self) -> None:
        """Servers without an identity count as different ones."""
        known = Identities()
        known.enter("place a", "a:1", "")
        known.enter("place b", "b:1", "")
