"""Outboxes of telemetry, with a real thread and a slow, broken or blocked sender."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.otel import outbox
from ncps.observe.otel.outbox import Outbox, OutboxLimits
from tests.waiting import wait_until


class _Sender:
    """Records the sent items, and waits while `gate` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[int]] = []
        self.waiting = 0
        self.error: Exception | None = None
        self.is_taken = True

    def send(self, items: Sequence[int]) -> bool:
        self.waiting += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.is_taken:
            self.batches.append(list(items))
        return self.is_taken

    def close(self) -> None:
        self.gate.set()


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sender = _Sender()
        self.lost = 0
        limits = OutboxLimits(size=6, batch=3, delay_s=0.01)
        self.outbox: Outbox[int] = Outbox("traces", self.sender, self.lose, limits)

    def lose(self, count: int) -> None:
        self.lost += count

    def test_items_come_in_order_and_in_batches(self) -> None:
        """Also the last ones, at the end."""
        for item in range(5):
            self.outbox.put(item)
        self.outbox.start()
        self.outbox.close_blocking(10)
        self.assertEqual([0, 1, 2, 3, 4], [*chain(*self.sender.batches)])
        self.assertEqual([0, 1, 2], self.sender.batches[0])
        self.outbox.put(5)
        self.assertEqual(1, self.lost)

    def test_a_sender_that_is_stuck_costs_a_count(self) -> None:
        """No caller waits for it; items beyond the limit are counted and dropped."""
        self.sender.gate.clear()
        self.outbox.start()
        self.outbox.put(0)
        wait_until(lambda: self.sender.waiting, "the sender to be stuck")
        for item in range(1000):
            self.outbox.put(item)
        self.assertEqual(1000 - 6, self.lost)
        self.outbox.close_blocking(0.05)
        self.assertTrue(self.sender.gate.is_set())

    def test_a_failure_is_told_once(self) -> None:
        """There is one line when it fails, and one when it works again."""
        with capturedLogs() as events:
            self.outbox.start()
            for error, is_taken, lost in (
                (OSError("away"), True, 1),
                (None, False, 2),
                (OSError("away"), True, 3),
            ):
                self.sender.error, self.sender.is_taken = error, is_taken
                self.outbox.put(1)
                wait_until(lambda: self.lost == lost, "the loss")  # noqa: B023
            self.sender.error = None
            self.outbox.put(2)
            wait_until(lambda: self.sender.batches, "the success")
            self.outbox.close_blocking(10)
        self.assertEqual(["warn", "info"], [event["log_level"].name for event in events])
        self.assertIn("away", events[0]["reason"])

    def test_an_empty_outbox_sleeps(self) -> None:
        """Its thread does not wake up again and again."""
        looks: list[int] = []

        class CountedTime:
            @staticmethod
            def monotonic() -> float:
                looks.append(1)
                return 0.0

        self.patch(outbox, "time", CountedTime)
        limits = OutboxLimits(size=6, batch=3, delay_s=0.0)
        idle: Outbox[int] = Outbox("traces", self.sender, self.lose, limits)
        idle.start()
        idle.put(1)
        wait_until(lambda: self.sender.batches, "the batch")
        threading.Event().wait(0.05)
        self.assertLess(len(looks), 5)
        idle.close_blocking(10)
