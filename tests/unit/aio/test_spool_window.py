"""Spool: bytes that the disk does not take pass through a window in memory."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError, Deferred

from ncps.aio.spool import WINDOW_HIGH, Abandoned
from ncps.aio.spool_queue import BATCH_LIMIT, QUEUE_HIGH
from ncps.aio.spool_reader import HOLD_BACK, Overtaken
from ncps.errors import Corrupt, NcpsError, Unavailable
from tests.fakes.spoolfile import full_after
from tests.unit.aio.spool_case import MIB, SpoolCase, noise


class StreamingThroughTests(SpoolCase):
    """The disk is full, or was from the start."""

    def fill(self, limit: int) -> None:
        self.patch(os, "pwrite", full_after(limit))

    def test_disk_full_in_the_middle_is_not_noticed_by_clients(self) -> None:
        """Clients get all bytes; the spool is not kept, and gives the reason."""
        data = noise(3 * MIB)
        self.fill(MIB + 17)
        client = self.client()
        for start in range(0, len(data), 300_000):
            self.put(data[start : start + 300_000])
        self.finish()
        self.successResultOf(client.done)
        self.assertEqual(data, client.data)
        self.assertFalse(self.spool.is_kept)
        self.assertEqual("No space left on device", self.spool.keep_error)
        self.assertEqual(1, self.file.closed)

    def test_no_file_at_all(self) -> None:
        """Without room from the start, the spool streams through in the same way."""
        data = noise(2 * MIB)
        self.spool = self.new(total=len(data), kept=False)
        client, part = self.client(), self.client(10, 20)
        self.put(data)
        self.finish()
        self.successResultOf(client.done)
        self.successResultOf(part.done)
        self.assertEqual((data, data[10:20]), (client.data, part.data))
        self.assertEqual("disk full", self.spool.keep_error)
        self.file.close()

    def test_slowest_reader_holds_the_writer(self) -> None:
        """Without a disk the slowest client sets the pace; memory is limited."""
        self.fill(0)
        data = noise(24 * MIB)
        slow, fast = self.client(hold=True), self.client()
        pouring = Deferred.fromCoroutine(self.pour(data))
        self.assertNoResult(pouring)
        bound = WINDOW_HIGH + BATCH_LIMIT + QUEUE_HIGH + MIB
        while not pouring.called:
            held = len(self.spool._content.window) + self.spool._queue.size
            self.assertLessEqual(held, bound)
            slow.go()
        self.successResultOf(pouring)
        self.finish()
        self.successResultOf(fast.done)
        while not slow.done.called:
            slow.go()
        self.assertEqual([data, data], [slow.data, fast.data])

    async def pour(self, data: bytes, step: int = MIB) -> None:
        for start in range(0, len(data), step):
            await self.spool.write(data[start : start + step])
        await self.spool.flush()

    def test_slowest_reader_that_leaves_lets_the_writer_go_on(self) -> None:
        """If a stalled client is cut, the others continue."""
        self.fill(0)
        slow, fast = self.client(hold=True), self.client()
        pouring = Deferred.fromCoroutine(self.pour(noise(20 * MIB)))
        self.assertNoResult(pouring)
        slow.done.cancel()
        self.failureResultOf(slow.done, CancelledError)
        self.successResultOf(pouring)
        self.assertEqual(20 * MIB - HOLD_BACK, len(fast.data))

    def test_without_reader_and_file_the_fetch_ends(self) -> None:
        """If no reader wants the bytes and no file keeps them, the fetch ends."""
        self.fill(0)
        for _ in range((WINDOW_HIGH + BATCH_LIMIT) // MIB):
            self.write(noise(MIB))
        self.failureResultOf(self.write(b"x" * QUEUE_HIGH), Abandoned)
        self.assertTrue(issubclass(Abandoned, NcpsError))

    def test_last_reader_leaves_while_the_writer_waits(self) -> None:
        """If the last client leaves, a waiting writer gets an error."""
        self.fill(0)
        client = self.client(hold=True)
        pouring = Deferred.fromCoroutine(self.pour(noise(20 * MIB)))
        self.assertNoResult(pouring)
        client.done.cancel()
        self.failureResultOf(client.done, CancelledError)
        self.failureResultOf(pouring, Abandoned)

    def test_closing_reader_after_the_window_ran_empty(self) -> None:
        """Closing a finished reader does not change the window of the others."""
        self.fill(0)
        ahead = self.client(5 * MIB)
        self.put(noise(MIB))
        self.assertEqual(0, len(self.spool._content.window))
        behind = self.client(MIB)
        ahead.body.close()
        self.failureResultOf(ahead.done, Unavailable)
        self.put(noise(MIB))
        self.finish()
        self.successResultOf(behind.done)
        self.assertEqual(MIB, len(behind.data))

    def test_late_joiner_gets_overtaken(self) -> None:
        """A reader that comes too late for its bytes gets Overtaken."""
        self.fill(MIB)
        client = self.client()
        for _ in range(3):
            self.put(noise(MIB))
        self.assertRaises(Overtaken, self.spool.reader)
        self.assertRaises(Overtaken, self.spool.reader, MIB + 5)
        tail = self.client(3 * MIB - HOLD_BACK)
        self.put(b"end")
        self.finish()
        self.successResultOf(client.done)
        self.successResultOf(tail.done)
        self.assertEqual(HOLD_BACK + 3, len(tail.data))

    def test_joiner_in_time_reads_file_and_window(self) -> None:
        """While no byte is dropped, a second client can begin at the start."""
        data = noise(2 * MIB)
        self.fill(MIB)
        first = self.client(hold=True)
        self.put(data)
        second = self.client()
        self.finish()
        self.successResultOf(second.done)
        while not first.done.called:
            first.go()
        self.assertEqual([data, data], [first.data, second.data])

    def test_short_range_does_not_deadlock_with_its_own_commit(self) -> None:
        """A client of a short range waits for the verdict without stopping the writer."""
        data = noise(16 * MIB)
        self.fill(0)
        self.spool.total = len(data)
        part, whole = self.client(1000, 2000), self.client()
        self.successResultOf(Deferred.fromCoroutine(self.pour(data)))
        self.assertEqual(b"", part.data)
        self.finish()
        self.successResultOf(part.done)
        self.successResultOf(whole.done)
        self.assertEqual(data[1000:2000], part.data)
        self.assertEqual(data, whole.data)

    def test_range_alone_does_not_deadlock(self) -> None:
        """A single client of a range that is half in the file does not stop the writer."""
        data = noise(16 * MIB)
        self.fill(1500)
        part = self.client(1000, 2000)
        for start in range(0, len(data), MIB):
            self.put(data[start : start + MIB])
        self.finish()
        self.successResultOf(part.done)
        self.assertEqual(data[1000:2000], part.data)

    def test_failure_after_the_tail_was_taken_delivers_none_of_it(self) -> None:
        """If the file is wrong, a reader does not get its copied bytes."""
        self.fill(0)
        part = self.client(0, 10)
        self.put(noise(MIB))
        self.spool.fail(Corrupt("wrong"))
        self.failureResultOf(part.done, Corrupt)
        self.assertEqual(b"", part.data)

    def test_two_hundred_readers_without_a_file(self) -> None:
        """Two hundred clients on a full disk need time in proportion, and little memory."""
        self.fill(0)
        counts = [0] * 200

        async def count(number: int) -> None:
            async for chunk in self.spool.reader():
                counts[number] += len(chunk)

        clients = [Deferred.fromCoroutine(count(number)) for number in range(200)]
        for _ in range(20):
            self.put(noise(100_000))
        self.finish()
        for client in clients:
            self.successResultOf(client)
        self.assertEqual([20 * 100_000] * 200, counts)

    def test_spool_without_file_and_reader_is_gone_after_release(self) -> None:
        """After the release, bytes that were never kept cannot be read."""
        self.spool = self.new(kept=False)
        self.put(b"abc")
        self.finish()
        self.assertRaises(Overtaken, self.spool.reader)
        self.file.close()
