"""Tests of what is the same for all leases that processes share."""

from __future__ import annotations

from itertools import islice

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Refused, Unavailable
from ncps.locks.shared import Polls, SharedLeases, since_boot
from ncps.ports import Lease
from tests.contract.running import start
from tests.unit.locks.registry import MemoryRegistry


class SharedCase(SynchronousTestCase):
    may_degrade = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = MemoryRegistry()
        self.seen: list[str] = []
        self.leases = SharedLeases(
            self.clock,
            self.registry,
            polls=Polls(initial_s=1.0, longest_s=4.0, is_jittered=False),
            observe=lambda what, _seconds: self.seen.append(what),
            may_degrade=self.may_degrade,
            address="here",
            wall=lambda: 1000.0,
        )

    def held(self, name: str = "a") -> tuple[Deferred[None], Deferred[None], list[Lease]]:
        """Wait for the lease, hold it until the first fires; the second is the end."""
        leave: Deferred[None] = Deferred()
        got: list[Lease] = []

        async def hold() -> None:
            async with self.leases.hold(name) as lease:
                got.append(lease)
                await leave

        return leave, start(hold()), got

    def tried(self, name: str = "a") -> Lease | None:
        lease: Lease | None = self.successResultOf(start(self.leases.try_hold(name)))
        return lease


class WaitingTests(SharedCase):
    def test_who_waits_polls_ever_more_slowly(self) -> None:
        """Where no release is announced, it is found out, at the latest after the longest pause."""
        self.registry.held["a"] = "another process"
        leave, done, got = self.held()
        for pause in (1, 2, 4, 4):
            before = self.registry.attempts
            self.clock.advance(pause - 0.1)
            self.assertEqual(self.registry.attempts, before)
            self.clock.advance(0.1)
            self.assertEqual(self.registry.attempts, before + 1)
        del self.registry.held["a"]
        self.clock.advance(4)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_announcement_ends_the_pause(self) -> None:
        """A bell makes who waits look at once; a false alarm costs nothing."""
        self.registry.held["a"] = "another process"
        leave, done, got = self.held()
        self.registry.bells.ring("a")
        self.assertEqual((self.registry.attempts, got), (2, []))
        del self.registry.held["a"]
        self.registry.bells.ring("a")
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)

    def test_a_release_during_the_attempt_is_not_missed(self) -> None:
        """What is announced between the question and the answer counts."""
        self.registry.held["a"] = "another process"
        gate: Deferred[None] = Deferred()
        self.registry.gate = gate
        leave, done, got = self.held()
        self.registry.bells.ring("a")
        self.registry.gate = None
        gate.callback(None)
        self.assertEqual(self.registry.attempts, 2)
        del self.registry.held["a"]
        self.registry.bells.ring("a")
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)

    def test_one_process_asks_once(self) -> None:
        """Of many who wait here for one name, one asks."""
        self.registry.held["a"] = "another process"
        waiting = [self.held()[1] for _ in range(20)]
        self.assertEqual(self.registry.attempts, 1)
        self.clock.advance(1)
        self.assertEqual(self.registry.attempts, 2)
        for each in waiting:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(len(self.leases), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_while_the_lease_is_on_its_way(self) -> None:
        """Who leaves is gone at once; what is granted later goes back before the next turn."""
        gate: Deferred[None] = Deferred()
        self.registry.gate = gate
        _, first, _ = self.held()
        leave, second, got = self.held()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertIsNone(self.tried())
        self.registry.gate = None
        gate.callback(None)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(second)
        self.assertEqual((self.registry.held, len(self.leases)), ({}, 0))

    def test_cancelled_while_an_attempt_fails(self) -> None:
        """An error that nobody waits for ends the turn and is nobody's."""
        gate: Deferred[None] = Deferred()
        self.registry.gate = gate
        _, first, _ = self.held()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.registry.failing = Unavailable("away")
        gate.callback(None)
        self.assertEqual(len(self.leases), 0)

    def test_a_release_is_carried_out_though_nobody_waits_for_it(self) -> None:
        """Cancelled twice, a holder still gives the lease back."""
        _, done, got = self.held()
        self.assertEqual(len(got), 1)
        gate: Deferred[None] = Deferred()
        self.registry.gate = gate
        done.cancel()
        self.assertNoResult(done)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertIsNone(self.tried())
        gate.callback(None)
        self.assertEqual((self.registry.held, len(self.leases)), ({}, 0))

    def test_errors_leave_no_turn_behind(self) -> None:
        """Whatever an attempt ends in, the next one may follow."""
        for error in (Unavailable("away"), Refused("programming error")):
            self.registry.failing = error
            self.failureResultOf(start(self.leases.try_hold("a")), type(error))
            self.failureResultOf(self.held()[1], type(error))
            self.assertEqual(len(self.leases), 0)
        self.flushLoggedErrors(Refused)
        self.registry.failing = None
        lease = self.tried()
        assert lease is not None
        self.successResultOf(start(lease.release()))
        self.assertEqual(self.seen, ["failure", "failure", "success", "held"])

    def test_stop_waits_for_what_is_given_back(self) -> None:
        """A release under way is carried out before the registry is left."""
        self.successResultOf(start(self.leases.start()))
        lease = self.tried()
        assert lease is not None
        gate: Deferred[None] = Deferred()
        self.registry.gate = gate
        released = start(lease.release())
        stopped = start(self.leases.stop(5))
        self.assertNoResult(stopped)
        self.assertTrue(self.registry.is_running)
        gate.callback(None)
        self.successResultOf(released)
        self.successResultOf(stopped)
        self.assertFalse(self.registry.is_running)

    def test_stop_gives_up_at_its_deadline(self) -> None:
        """Attempts without an answer are cut, and whoever waits for them is told."""
        self.registry.gate = Deferred()
        waiting = start(self.leases.try_hold("a"))
        stopped = start(self.leases.stop(5))
        self.clock.advance(5)
        self.failureResultOf(waiting, Unavailable)
        self.successResultOf(stopped)


class DegradedTests(SharedCase):
    may_degrade = True

    def test_leases_go_on_within_the_process(self) -> None:
        """One holds, the others wait in line, and the holder is here."""
        self.registry.failing = Unavailable("away")
        self.assertTrue(self.leases.is_degraded)
        leave, done, got = self.held()
        second_leave, second, second_got = self.held()
        self.assertEqual((len(got), second_got), (1, []))
        self.assertFalse(got[0].is_lost)
        self.assertEqual(self.successResultOf(start(self.leases.holder("a"))), "here")
        leave.callback(None)
        self.successResultOf(done)
        self.assertEqual(len(second_got), 1)
        self.assertGreater(second_got[0].fence, got[0].fence)
        self.assertGreaterEqual(got[0].fence, 1000 * 10**6)
        self.registry.failing = None
        self.assertFalse(self.leases.is_degraded)
        second_leave.callback(None)
        self.successResultOf(second)
        self.assertEqual((self.registry.held, len(self.leases)), ({}, 0))
        self.assertEqual(self.successResultOf(start(self.leases.holder("a"))), "")

    def test_who_waits_for_another_process_goes_on_alone(self) -> None:
        """A registry that goes away while one waits ends the wait at the next look."""
        self.registry.held["a"] = "another process"
        leave, done, got = self.held()
        self.registry.failing = Unavailable("away")
        self.clock.advance(1)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)


class PollsTests(SynchronousTestCase):
    def test_jitter_shortens_by_half_at_most(self) -> None:
        """Processes that began to wait together do not ask together, and none asks late."""
        polls = Polls(initial_s=1.0, longest_s=4.0)
        seen = [list(islice(polls.pauses(), 4)) for _ in range(50)]
        for pauses in seen:
            for pause, most in zip(pauses, (1, 2, 4, 4), strict=True):
                self.assertTrue(most / 2 <= pause <= most)
        self.assertGreater(len({pauses[0] for pauses in seen}), 1)


class ClockTests(SynchronousTestCase):
    def test_the_clock_goes_forward(self) -> None:
        """Nobody sets it back."""
        self.assertLessEqual(since_boot(), since_boot())
