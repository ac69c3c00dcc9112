"""The parts of a spool: its queue, and its window."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.spool_content import SpoolContent, SpoolWindow
from ncps.aio.spool_queue import BATCH_LIMIT, QUEUE_HIGH, SpoolQueue
from ncps.errors import Unavailable
from tests.fakes.threads import InlineThreads


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = SpoolQueue()

    def test_chunks_leave_in_batches_in_their_order(self) -> None:
        """A batch takes chunks until it is large; small ones are copied into one."""
        large = b"b" * BATCH_LIMIT
        for chunk in (b"a", large, b"c", b"d"):
            self.queue.put(chunk)
        self.assertEqual([b"a", large], list(self.queue.take_batch()))
        self.assertEqual([b"cd"], list(self.queue.take_batch()))
        self.assertEqual((0, BATCH_LIMIT + 3), (len(self.queue), self.queue.size))

    def test_a_full_queue_waits_for_room(self) -> None:
        """The wait ends when half of the limit is left, or with the error of the queue."""
        self.queue.put(b"x" * (QUEUE_HIGH + 1))
        waiting = Deferred.fromCoroutine(self.queue.room())
        self.queue.wake()
        self.assertNoResult(waiting)
        self.queue.size = 0
        self.queue.wake()
        self.successResultOf(waiting)
        self.queue.size = QUEUE_HIGH + 1
        failing = Deferred.fromCoroutine(self.queue.room())
        self.queue.fail(Unavailable("gone"))
        self.failureResultOf(failing, Unavailable)
        self.assertEqual(0, len(self.queue))

    def test_only_the_first_error_counts(self) -> None:
        """Later errors, which follow from the first one, are ignored."""
        self.queue.fail(Unavailable("first"))
        self.queue.fail(Unavailable("second"))
        self.assertEqual("first", str(self.assertRaises(Unavailable, self.queue.check)))


class WindowTests(SynchronousTestCase):
    def test_bytes_have_the_offsets_of_the_spool(self) -> None:
        """The window begins at the offset of its first bytes; dropping only moves it forward."""
        window = SpoolWindow()
        window.add(memoryview(b"abc"), 10)
        window.add(memoryview(b"def"), 99)
        self.assertEqual((10, 16, b"cd"), (window.start, window.end, window.read(12, 2)))
        window.drop_before(12)
        window.drop_before(5)
        self.assertEqual((12, b"cdef"), (window.start, window.read(12, 9)))
        window.drop_before(99)
        self.assertEqual((16, 0), (window.start, len(window)))


class ContentTests(SynchronousTestCase):
    def test_without_a_file_everything_goes_through_the_window(self) -> None:
        """Dropped bytes cannot be read again; all bytes are hashed."""
        hashed: list[bytes] = []
        content = SpoolContent(None, InlineThreads(), (hashed.append,), int, "disk full")
        written, why = self.successResultOf(Deferred.fromCoroutine(content.store([b"ab", b"cd"])))
        content.stored([b"ab", b"cd"], written, why)
        content.length += 4
        self.assertEqual((0, "disk full", [b"ab", b"cd"]), (written, content.disk.trouble, hashed))
        self.assertEqual(b"bc", self.successResultOf(Deferred.fromCoroutine(content.read(1, 3))))
        content.window.drop_before(2)
        self.assertEqual((False, True), (content.has(1), content.has(2)))
