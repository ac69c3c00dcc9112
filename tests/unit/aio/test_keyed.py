"""Tests of the lock and the event that each name has."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.keyed import KeyedEvent, KeyedLock
from tests.contract.running import start


class KeyedLockTests(SynchronousTestCase):
    def test_waiters_get_the_lock_in_order(self) -> None:
        """A release gives the lock to the next waiter, once."""
        locks = KeyedLock()
        first = self.successResultOf(start(locks.acquire("a")))
        second, third = start(locks.acquire("a")), start(locks.acquire("a"))
        self.successResultOf(start(locks.acquire("b")))
        self.assertNoResult(second)
        first()
        first()
        release = self.successResultOf(second)
        self.assertNoResult(third)
        release()
        self.successResultOf(third)()
        self.assertNotIn("a", locks)
        self.assertIn("b", locks)

    def test_a_cancelled_waiter_is_forgotten(self) -> None:
        """After a cancelled wait the name is forgotten."""
        locks = KeyedLock()
        release = self.successResultOf(start(locks.acquire("a")))
        waiting = start(locks.acquire("a"))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        release()
        self.assertEqual(len(locks), 0)


class KeyedEventTests(SynchronousTestCase):
    def test_an_event_fires_once_for_its_name(self) -> None:
        """A second event does nothing, and neither does an event of a name without a watcher."""
        events = KeyedEvent()
        event = events.watch("a")
        events.set("b")
        self.assertNoResult(event)
        events.set("a")
        self.successResultOf(event)
        events.set("a")
        events.forget("a")
        events.forget("a")
        self.assertEqual(len(events), 0)

    def test_all_events(self) -> None:
        """After a gap every waiter checks again; a cancelled waiter does no harm."""
        events = KeyedEvent()
        one, other = events.watch("a"), events.watch("b")
        other.cancel()
        self.failureResultOf(other, CancelledError)
        events.set_all()
        self.successResultOf(one)
