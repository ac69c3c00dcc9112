"""Lines that wait for a reader; the test calls each step of the thread."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.log_queue import LineQueue


class LineQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.addCleanup(os.close, self.read_fd)
        self.spawned: list[Callable[[], object]] = []
        self.queue = LineQueue(
            self.write_fd, "{} missing\n".format, max_size=30, spawn=self.spawned.append
        )

    def tearDown(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)

    def step(self) -> bytes:
        """Write one piece and return what arrives."""
        self.queue.step()
        return os.read(self.read_fd, 4096)

    def test_lines_arrive_in_order(self) -> None:
        """One thread writes each piece as a whole."""
        self.queue.write("one\n")
        self.queue.write("two\nthree\udc80\n")
        self.assertEqual(1, len(self.spawned))
        self.assertEqual(b"one\n", self.step())
        self.assertEqual(b"two\nthree\\udc80\n", self.step())
        self.assertEqual(0, self.queue.dropped)

    def test_a_line_without_room_is_dropped_and_reported(self) -> None:
        """One line, in the place of the missing lines, gives their number."""
        for text in ("a" * 19 + "\n", "b" * 19 + "\n", "c" * 9 + "\nd\ne\n"):
            self.queue.write(text)
        self.assertEqual(4, self.queue.dropped)
        self.assertEqual(b"a" * 19 + b"\n", self.step())
        self.queue.write("later\n")
        self.assertEqual(b"4 missing\n", self.step())
        self.assertEqual(b"later\n", self.step())
        self.assertEqual(4, self.queue.dropped)

    def test_missing_lines_are_told_though_nothing_follows(self) -> None:
        """No further line may come for hours."""
        self.queue.write("a" * 25 + "\n")
        self.queue.write("much too long\n")
        self.step()
        self.assertEqual(b"1 missing\n", self.step())

    def test_room_is_room_for_all_that_waits(self) -> None:
        """A piece counts until it is written."""
        for _ in range(100):
            self.queue.write("0123456789\n")
        self.assertEqual(98, self.queue.dropped)
        self.step()
        self.queue.write("x\n")
        self.assertEqual(98, self.queue.dropped)

    def test_a_line_that_cannot_be_written_is_missing(self) -> None:
        """A full disk, or a reader that has gone, only loses lines."""
        os.close(self.write_fd)
        self.write_fd = -1
        self.queue.write("one\n")
        self.queue.step()
        self.assertEqual(1, self.queue.dropped)

    def test_closing_waits_so_long_at_most(self) -> None:
        """The end of a process waits for a reader only until the deadline."""
        self.queue.close(10.0)  # nothing waits
        self.queue.write("one\n")
        self.queue.close(0.0)
        self.step()
        self.queue.close(10.0)
