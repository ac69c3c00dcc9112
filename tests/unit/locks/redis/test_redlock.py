"""Tests of leases at several servers: the effects of minorities and majorities."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.locks.redis.ballot import PATIENCE_S
from ncps.locks.redis.client import NotSent
from ncps.locks.redis.grant import RedisGrant
from ncps.locks.redis.locks import ATTEMPTS
from ncps.locks.redis.node import RAISE, RELEASE, RENEW, TAKE
from tests.contract.running import start
from tests.unit.locks.redis.scripted import OTHER, TTL_S, ScriptedClient, backend_of

AWAY = NotSent("away")


class RedlockCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend, self.clients = backend_of(self.clock, 3)

    def say(self, *answers: object) -> None:
        """Set the answers of the servers from now on."""
        for client, answer in zip(self.clients, answers, strict=True):
            client.answer = answer

    def take(self, *answers: object) -> RedisGrant:
        self.say(*answers)
        grant = self.successResultOf(start(self.backend.take("a")))
        assert isinstance(grant, RedisGrant)
        return grant

    def give_back(self, grant: RedisGrant) -> None:
        self.say(1, 1, 1)
        self.successResultOf(start(grant.give_back()))
        self.assertEqual([], self.clock.getDelayedCalls())

    def asked(self) -> list[list[str]]:
        """Return the questions to each server since the last call."""
        asked = [client.asked for client in self.clients]
        for client in self.clients:
            client.asked = []
        return asked


class TakingTests(RedlockCase):
    def test_a_majority_is_enough(self) -> None:
        """One server may have another holder, be away, or be silent."""
        for third in (0, AWAY, Unavailable("no answer"), Deferred[int]()):
            grant = self.take(7, 7, third)
            self.assertFalse(grant.is_lost)
            self.give_back(grant)

    def test_it_is_taken(self) -> None:
        """A majority with another holder decides immediately; shares are given back silently."""
        self.say(0, 7, 0)
        self.assertIsNone(self.successResultOf(start(self.backend.take("a"))))
        self.assertEqual([[TAKE], [TAKE, RELEASE], [TAKE]], self.asked())
        self.assertEqual("", self.clients[1].words[1])

    def test_no_process_has_a_majority(self) -> None:
        """Processes with parts give back, and ask again after random times."""
        self.say(7, 0, "1" * 32)
        taking = start(self.backend.take("a"))
        self.assertNoResult(taking)
        self.assertEqual([[TAKE, RELEASE], [TAKE], [TAKE]], self.asked())
        self.say(7, 7, 0)
        self.clock.advance(PATIENCE_S)
        grant = self.successResultOf(taking)
        self.assertFalse(grant.is_lost)
        self.give_back(grant)

    def test_no_process_has_a_majority_after_many_attempts(self) -> None:
        """After some attempts the name counts as taken."""
        self.say(7, 0, "1" * 32)
        taking = start(self.backend.take("a"))
        self.clock.pump([PATIENCE_S] * 2**ATTEMPTS)
        self.assertIsNone(self.successResultOf(taking))
        self.assertEqual(ATTEMPTS, self.asked()[1].count(TAKE))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_no_majority_answers(self) -> None:
        """Without a majority there is no lease, and shares are given back with a message."""
        self.say(7, AWAY, Unavailable("no answer"))
        failure = self.failureResultOf(start(self.backend.take("a")), Unavailable)
        self.assertIn("2 of 3", str(failure.value))
        self.assertEqual([[TAKE, RELEASE], [TAKE], [TAKE, RELEASE]], self.asked())
        self.assertNotEqual("", self.clients[0].words[1])

    def test_a_majority_that_answers_too_late(self) -> None:
        """If answers come too late for the TTL, the lease is given back."""
        slow: Deferred[int] = Deferred()
        self.say(7, slow, AWAY)
        taking = start(self.backend.take("a"))
        self.clock.advance(TTL_S)
        self.say(7, 7, 7)
        slow.callback(7)
        self.failureResultOf(taking, Unavailable)
        self.assertEqual(self.asked()[:2], [[TAKE, RELEASE]] * 2)

    def test_a_late_answer_of_a_lease_that_was_given_back(self) -> None:
        """A slow server gets a release as well."""
        slow: Deferred[int] = Deferred()
        grant = self.take(7, 7, slow)
        self.give_back(grant)
        self.assertEqual([[TAKE, RELEASE]] * 3, self.asked())

    def test_the_holder(self) -> None:
        """The address comes from a majority, or is the most frequent one."""
        mine = f"{OTHER} 7 http://a".encode()
        for answers, expected in (
            ([mine, mine, AWAY], "http://a"),
            ([None, mine, mine], "http://a"),
            ([None, None, mine], ""),
            ([None, mine, AWAY], "http://a"),
        ):
            self.say(*answers)
            self.assertEqual(expected, self.successResultOf(start(self.backend.holder("a"))))
        self.say(mine, AWAY, AWAY)
        self.failureResultOf(start(self.backend.holder("a")), Unavailable)


class KeepingTests(RedlockCase):
    def test_a_minority_that_goes_away_is_no_loss(self) -> None:
        """Two of three servers keep the lease."""
        grant = self.take(7, 7, 7)
        self.say(1, 1, Unavailable("away"))
        self.clock.pump([1.0] * 60)
        self.assertFalse(grant.is_lost)
        self.give_back(grant)

    def test_a_majority_that_goes_away_loses_it(self) -> None:
        """When the second share has expired, the lease is lost for ever."""
        grant = self.take(7, 7, 7)
        self.say(1, Unavailable("away"), Unavailable("away"))
        self.clock.pump([0.5] * 23)
        self.assertFalse(grant.is_lost)
        self.clock.advance(0.4)
        self.assertTrue(grant.is_lost)
        self.say(1, 1, 1)
        self.clock.pump([1.0] * 10)
        self.assertTrue(grant.is_lost)
        self.give_back(grant)

    def test_a_server_that_forgot_is_given_the_key_again(self) -> None:
        """So servers may restart without their data, one after another."""
        grant = self.take(7, 7, 7)
        for forgetful in self.clients:
            self.say(1, 1, 1)
            forgetful.answer = 0
            self.asked()
            self.clock.advance(4)
            self.assertEqual([RENEW, TAKE], self.asked()[self.clients.index(forgetful)])
            forgetful.answer = 9
            self.clock.advance(1)
            self.assertFalse(grant.is_lost)
        self.assertEqual(7, grant.fence)
        self.give_back(grant)

    def test_two_servers_that_forgot_at_once(self) -> None:
        """If two servers forget at the same time, the lease is lost and not taken again."""
        grant = self.take(7, 7, 7)
        self.say(1, 0, 0)
        self.clock.advance(4)
        self.assertTrue(grant.is_lost)
        self.assertEqual([TAKE, RENEW], self.asked()[2])
        self.give_back(grant)

    def test_a_server_that_was_away_at_first(self) -> None:
        """A server that was away gets the key soon, and then counts."""
        grant = self.take(7, 7, AWAY)
        self.say(1, 1, 8)
        self.clock.advance(1)
        self.say(1, AWAY, 1)
        self.clock.pump([1.0] * 30)
        self.assertFalse(grant.is_lost)
        self.give_back(grant)

    def test_a_release_waits_for_a_majority(self) -> None:
        """A silent server does not delay a release."""
        grant = self.take(7, 7, 7)
        self.say(1, 1, Deferred[int]())
        self.successResultOf(start(grant.give_back()))
        grant = self.take(7, 7, 7)
        self.say(Unavailable("away"), 1, Unavailable("away"))
        self.successResultOf(start(grant.give_back()))


class FenceTests(RedlockCase):
    def ahead(self, *clocks: float | None) -> None:
        """Set the clocks of the servers ahead by these seconds; None: not known."""
        for node, clock in zip(self.backend._nodes, clocks, strict=True):
            node.ahead_s = clock

    def test_a_majority_has_the_number(self) -> None:
        """The fence is the largest grant, and a majority of the servers gets it."""
        for fences, raised in (
            ((7, 7, 7), []),
            ((7, 7, 5), [2]),
            ((9, 7, AWAY), [1, 2]),
            ((7, 9, 0), [0, 2]),
            ((7, AWAY, 9), [0, 1]),
        ):
            self.asked()
            grant = self.take(*fences)
            self.assertEqual(max(f for f in fences if isinstance(f, int)), grant.fence)
            asked = self.asked()
            self.assertEqual(raised, [at for at in range(3) if RAISE in asked[at]])
            self.give_back(grant)

    def test_a_server_that_hangs_between_grant_and_number(self) -> None:
        """If a server hangs, another one gets the number before its own grant."""
        slow, late = Deferred[int](), Deferred[int]()
        self.say(9, 7, late)

        class Hanging(ScriptedClient):
            async def script(self, script: str, keys: list[str], words: list[object]) -> object:
                if script == RAISE:
                    await slow
                return await super().script(script, keys, words)

        self.clients[1] = self.backend._nodes[1].client = Hanging()  # type: ignore[assignment]
        taking = start(self.backend.take("a"))
        self.assertNoResult(taking)
        late.callback(1)
        grant = self.successResultOf(taking)
        self.assertEqual(9, grant.fence)
        self.give_back(grant)
        slow.callback(1)

    def test_a_number_that_no_majority_learns(self) -> None:
        """If no majority gets the number, there is no lease."""
        clients = self.clients

        class Forgetting(ScriptedClient):
            async def script(self, script: str, keys: list[str], words: list[object]) -> object:
                if script == RAISE:
                    raise Unavailable("away")
                return await super().script(script, keys, words)

        clients[1] = self.backend._nodes[1].client = Forgetting()  # type: ignore[assignment]
        self.say(9, 7, AWAY)
        self.failureResultOf(start(self.backend.take("a")), Unavailable)
        self.assertEqual([[TAKE, RELEASE], [TAKE, RELEASE], [TAKE, RAISE]], self.asked())

    def test_the_requested_number(self) -> None:
        """The requested number is ahead of the fastest clock, and always grows."""
        wishes = []
        for clocks in ((None, None, None), (5.0, 3600.0, None), (5.0, 6.0, 7.0)):
            self.ahead(*clocks)
            grant = self.take(7, AWAY, 7)
            wishes.append(self.clients[0].words[2])
            self.give_back(grant)
        self.assertEqual([0, 3_600_100_000, 3_600_100_001], wishes)
