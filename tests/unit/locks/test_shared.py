"""Tests of leases that processes share, on a backend in memory."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.backoff import EXACT, Backoff
from ncps.errors import Refused, Unavailable
from ncps.locks.degraded import DegradedGrants
from ncps.locks.shared import SharedLeases, since_boot
from ncps.observe.metrics import Metrics
from ncps.ports import Lease
from tests.contract.running import start
from tests.fakes.metrics import observed, series
from tests.unit.locks.backend import MemoryBackend


class SharedCase(SynchronousTestCase):
    may_degrade = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = MemoryBackend()
        self.metrics = Metrics()
        degraded = DegradedGrants(address="here", wall=lambda: 1000.0)
        self.leases = SharedLeases(
            self.clock,
            self.backend,
            polls=Backoff(first_s=1.0, longest_s=4.0, jitter=EXACT),
            metrics=self.metrics,
            mode="redis",
            degraded=degraded if self.may_degrade else None,
        )

    def held(self, name: str = "a") -> tuple[Deferred[None], Deferred[None], list[Lease]]:
        """Take a lease and hold it until the first Deferred fires; the second one is the end."""
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
    def test_a_waiter_polls_ever_more_slowly(self) -> None:
        """Without a message, a waiter finds a free name after at most the longest pause."""
        self.backend.held["a"] = "another process"
        leave, done, got = self.held()
        for pause in (1, 2, 4, 4):
            before = self.backend.attempts
            self.clock.advance(pause - 0.1)
            self.assertEqual(self.backend.attempts, before)
            self.clock.advance(0.1)
            self.assertEqual(self.backend.attempts, before + 1)
        del self.backend.held["a"]
        self.clock.advance(4)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_announcement_ends_the_pause(self) -> None:
        """An event ends the pause; a needless event does no harm."""
        self.backend.held["a"] = "another process"
        leave, done, got = self.held()
        self.backend.freed.set("a")
        self.assertEqual((self.backend.attempts, got), (2, []))
        del self.backend.held["a"]
        self.backend.freed.set("a")
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)

    def test_a_release_during_the_attempt_is_not_missed(self) -> None:
        """An event between an attempt and its answer makes the waiter attempt again."""
        self.backend.held["a"] = "another process"
        gate: Deferred[None] = Deferred()
        self.backend.gate = gate
        leave, done, got = self.held()
        self.backend.freed.set("a")
        self.backend.gate = None
        gate.callback(None)
        self.assertEqual(self.backend.attempts, 2)
        del self.backend.held["a"]
        self.backend.freed.set("a")
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)

    def test_one_process_asks_once(self) -> None:
        """Of many coroutines that wait for one name, only one makes attempts."""
        self.backend.held["a"] = "another process"
        waiting = [self.held()[1] for _ in range(20)]
        self.assertEqual(self.backend.attempts, 1)
        self.clock.advance(1)
        self.assertEqual(self.backend.attempts, 2)
        for each in waiting:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(len(self.leases), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_while_the_lease_is_on_its_way(self) -> None:
        """The waiter ends immediately; a later grant is given back before the next turn."""
        gate: Deferred[None] = Deferred()
        self.backend.gate = gate
        _, first, _ = self.held()
        leave, second, got = self.held()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertIsNone(self.tried())
        self.backend.gate = None
        gate.callback(None)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(second)
        self.assertEqual((self.backend.held, len(self.leases)), ({}, 0))

    def test_cancelled_while_an_attempt_fails(self) -> None:
        """The error ends the turn; no caller gets it, and it is not logged."""
        gate: Deferred[None] = Deferred()
        self.backend.gate = gate
        _, first, _ = self.held()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.backend.failing = Unavailable("away")
        gate.callback(None)
        self.assertEqual(len(self.leases), 0)

    def test_a_release_does_not_need_its_caller(self) -> None:
        """A holder that is cancelled twice still gives the lease back."""
        _, done, got = self.held()
        self.assertEqual(len(got), 1)
        gate: Deferred[None] = Deferred()
        self.backend.gate = gate
        done.cancel()
        self.assertNoResult(done)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertIsNone(self.tried())
        gate.callback(None)
        self.assertEqual((self.backend.held, len(self.leases)), ({}, 0))

    def test_errors_leave_no_turn_behind(self) -> None:
        """After any end of an attempt, the next one may follow."""
        for error in (Unavailable("away"), Refused("programming error")):
            self.backend.failing = error
            self.failureResultOf(start(self.leases.try_hold("a")), type(error))
            self.failureResultOf(self.held()[1], type(error))
            self.assertEqual(len(self.leases), 0)
        self.flushLoggedErrors(Refused)
        self.backend.failing = None
        lease = self.tried()
        assert lease is not None
        self.successResultOf(start(lease.release()))
        attempts = {"exclusive redis failure": 2, "exclusive redis success": 1}
        self.assertEqual(attempts, series(self.metrics.lock_acquisitions))
        self.assertEqual((1, 0.0), observed(self.metrics.lock_hold_seconds("exclusive", "redis")))

    def test_stop_waits_for_releases(self) -> None:
        """`stop` waits for a running release before it stops the backend."""
        self.successResultOf(start(self.leases.start()))
        lease = self.tried()
        assert lease is not None
        gate: Deferred[None] = Deferred()
        self.backend.gate = gate
        released = start(lease.release())
        stopped = start(self.leases.stop(5))
        self.assertNoResult(stopped)
        self.assertTrue(self.backend.is_running)
        gate.callback(None)
        self.successResultOf(released)
        self.successResultOf(stopped)
        self.assertFalse(self.backend.is_running)

    def test_stop_gives_up_at_its_deadline(self) -> None:
        """Attempts without an answer are cancelled, and their callers get an error."""
        self.backend.gate = Deferred()
        waiting = start(self.leases.try_hold("a"))
        stopped = start(self.leases.stop(5))
        self.clock.advance(5)
        self.failureResultOf(waiting, Unavailable)
        self.successResultOf(stopped)


class DegradedTests(SharedCase):
    may_degrade = True

    def test_leases_go_on_within_the_process(self) -> None:
        """Within the process one coroutine holds the lease, and the others wait."""
        self.backend.failing = Unavailable("away")
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
        self.backend.failing = None
        self.assertFalse(self.leases.is_degraded)
        second_leave.callback(None)
        self.successResultOf(second)
        self.assertEqual((self.backend.held, len(self.leases)), ({}, 0))
        self.assertEqual(self.successResultOf(start(self.leases.holder("a"))), "")

    def test_a_waiter_gets_the_lease_without_the_backend(self) -> None:
        """If the backend goes away during a wait, the next attempt gets a lease."""
        self.backend.held["a"] = "another process"
        leave, done, got = self.held()
        self.backend.failing = Unavailable("away")
        self.clock.advance(1)
        self.assertEqual(len(got), 1)
        leave.callback(None)
        self.successResultOf(done)


class ClockTests(SynchronousTestCase):
    def test_the_clock_goes_forward(self) -> None:
        """The clock never goes back."""
        self.assertLessEqual(since_boot(), since_boot())
